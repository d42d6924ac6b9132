// The kernels of backward_ops.h as functions that put them on a stream. All pointers are device memory; nothing here
// waits, allocates or fails but by the stream's own error. Sums run in an order that the shapes alone decide.
//
//   std::byte* workspace = ...;  // ColumnSumsWorkspaceBytes(args.rows, args.size) bytes
//   AddColumnSums(args, workspace, stream);
#ifndef SWIFTKV_KERNELS_CUDA_BACKWARD_H_
#define SWIFTKV_KERNELS_CUDA_BACKWARD_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backward_ops.h"

namespace swiftkv::kernels::cuda {

// Gradients of rows (backward_rows.cu).
void RmsNormBackward(const RmsNormBackwardArgs& args, std::byte* workspace, cudaStream_t stream);
int64_t RmsNormBackwardWorkspaceBytes(const RmsNormBackwardArgs& args);
void RopeBackward(const RopeBackwardArgs& args, cudaStream_t stream);
void SiluMulBackward(const SiluMulBackwardArgs& args, cudaStream_t stream);
void Round(const RoundArgs& args, cudaStream_t stream);
void Transpose(const TransposeArgs& args, cudaStream_t stream);
void AddColumnSums(const ColumnSumsArgs& args, std::byte* workspace, cudaStream_t stream);
int64_t ColumnSumsWorkspaceBytes(int64_t rows, int64_t size);
void ScatterRows(const ScatterRowsArgs& args, cudaStream_t stream);

// Losses (backward_losses.cu).
void KlLoss(const KlLossArgs& args, cudaStream_t stream);
void HiddenLoss(const HiddenLossArgs& args, std::byte* workspace, cudaStream_t stream);
int64_t HiddenLossWorkspaceBytes(int64_t rows);

// The optimizer (backward_optimizer.cu).
void SumOfSquares(const SumOfSquaresArgs& args, std::byte* workspace, cudaStream_t stream);
int64_t SumOfSquaresWorkspaceBytes();
void AdamW(const AdamWArgs& args, cudaStream_t stream);

// Attention (backward_attention_plain.cu, backward_attention.cu).
inline constexpr int kAttentionBackwardTile = 64;  // rows

// kAttentionBackwardTile rows of a document: those of K and V from its row tile * kAttentionBackwardTile on, or of the
// queries as many tiles before its last.
struct AttentionBackwardTile {
  int64_t row_begin = 0;  // the document's
  int32_t rows = 0;       // the document's
  int32_t tile = 0;
};

// All tiles of the documents, those with the most work first. On the host.
std::vector<AttentionBackwardTile> MakeAttentionBackwardTiles(std::span<const AttentionDocument> documents);

// Of kBF16 with head_dim 64 or 128 on tensor cores, else in plain float32. args.documents isn't read.
void AttentionBackward(const AttentionBackwardArgs& args, const AttentionBackwardTile* tiles, int64_t tile_count,
                       std::byte* workspace, cudaStream_t stream);
int64_t AttentionBackwardWorkspaceBytes(const AttentionBackwardArgs& args);

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_BACKWARD_H_
