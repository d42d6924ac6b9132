#include "kernels/cuda/backward_ops.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cuda/backward.h"

namespace swiftkv::kernels::cuda {

std::vector<AttentionBackwardTile> MakeAttentionBackwardTiles(std::span<const AttentionDocument> documents) {
  std::vector<AttentionBackwardTile> tiles;
  for (const AttentionDocument& document : documents) {
    for (int64_t tile = 0; tile * kAttentionBackwardTile < document.rows; ++tile) {
      tiles.push_back({.row_begin = document.row_begin,
                       .rows = static_cast<int32_t>(document.rows),
                       .tile = static_cast<int32_t>(tile)});
    }
  }
  const auto tiles_left = [](const AttentionBackwardTile& tile) {
    return (tile.rows - 1) / kAttentionBackwardTile - tile.tile;
  };
  std::stable_sort(tiles.begin(), tiles.end(),
                   [&](const auto& a, const auto& b) { return tiles_left(a) > tiles_left(b); });
  return tiles;
}

std::byte* CudaBackwardOps::Workspace(int64_t bytes) const {
  if (bytes <= workspace_.bytes()) return workspace_.data();
  workspace_ = AlignedBuffer();
  Result<AlignedBuffer> grown = AlignedBuffer::Allocate(bytes, "work memory of gradients", *device_);
  if (!grown) {
    device_->Fail(grown.error());
    return nullptr;
  }
  workspace_ = std::move(*grown);
  return workspace_.data();
}

void CudaBackwardOps::RmsNorm(const RmsNormBackwardArgs& args) const {
  const int64_t bytes = RmsNormBackwardWorkspaceBytes(args);
  std::byte* workspace = bytes == 0 ? nullptr : Workspace(bytes);
  if (bytes == 0 || workspace != nullptr) RmsNormBackward(args, workspace, device_->stream());
}

void CudaBackwardOps::Rope(const RopeBackwardArgs& args) const { RopeBackward(args, device_->stream()); }

void CudaBackwardOps::SiluMul(const SiluMulBackwardArgs& args) const { SiluMulBackward(args, device_->stream()); }

void CudaBackwardOps::Attention(const AttentionBackwardArgs& args) const {
  const std::vector<AttentionBackwardTile> tiles = MakeAttentionBackwardTiles(args.documents);
  const auto count = static_cast<int64_t>(tiles.size());
  if (count == 0) return;
  const int64_t tile_bytes = (count * int64_t{sizeof(AttentionBackwardTile)} + 255) / 256 * 256;
  std::byte* workspace = Workspace(tile_bytes + AttentionBackwardWorkspaceBytes(args));
  if (workspace == nullptr) return;
  device_->Write(workspace, tiles.data(), count * int64_t{sizeof(AttentionBackwardTile)});
  AttentionBackward(args, reinterpret_cast<const AttentionBackwardTile*>(workspace), count, workspace + tile_bytes,
                    device_->stream());
}

void CudaBackwardOps::KlLoss(const KlLossArgs& args) const { cuda::KlLoss(args, device_->stream()); }

void CudaBackwardOps::Round(const RoundArgs& args) const { cuda::Round(args, device_->stream()); }

void CudaBackwardOps::Transpose(const TransposeArgs& args) const { cuda::Transpose(args, device_->stream()); }

void CudaBackwardOps::AddColumnSums(const ColumnSumsArgs& args) const {
  if (args.rows == 0) return;
  std::byte* workspace = Workspace(ColumnSumsWorkspaceBytes(args.rows, args.size));
  if (workspace != nullptr) cuda::AddColumnSums(args, workspace, device_->stream());
}

void CudaBackwardOps::ScatterRows(const ScatterRowsArgs& args) const { cuda::ScatterRows(args, device_->stream()); }

void CudaBackwardOps::HiddenLoss(const HiddenLossArgs& args) const {
  if (args.rows == 0) return;
  std::byte* workspace = Workspace(HiddenLossWorkspaceBytes(args.rows));
  if (workspace != nullptr) cuda::HiddenLoss(args, workspace, device_->stream());
}

void CudaBackwardOps::SumOfSquares(const SumOfSquaresArgs& args) const {
  std::byte* workspace = Workspace(SumOfSquaresWorkspaceBytes());
  if (workspace != nullptr) cuda::SumOfSquares(args, workspace, device_->stream());
}

void CudaBackwardOps::AdamW(const AdamWArgs& args) const { cuda::AdamW(args, device_->stream()); }

}  // namespace swiftkv::kernels::cuda
