#include "distill/logits_loss.h"

#include <algorithm>
#include <span>
#include <vector>

namespace swiftkv {
namespace {

using kernels::KlLossRow;

// Enough rows to use each panel of lm_head well, few enough that two tiles of logits stay near the cores. A device
// wants more.
constexpr int64_t kTileRows = 128;

LogitsLossSums SumsOf(std::span<const KlLossRow> stats) {
  LogitsLossSums sums{.rows = std::ssize(stats)};
  for (const KlLossRow& row : stats) {
    sums.loss += row.loss;
    sums.agree += row.agree ? 1 : 0;
  }
  return sums;
}

}  // namespace

LogitsLoss::LogitsLoss(const Weights& weights, const kernels::PackedMatrix& lm_head_transposed, double temperature)
    : weights_(weights),
      lm_head_transposed_(lm_head_transposed),
      temperature_(temperature),
      tile_rows_(std::max(kTileRows, weights.backend->logit_rows())) {}

Result<LogitsLossSums> LogitsLoss::Run(
    const std::function<void(int64_t begin, int64_t count, float* out)>& teacher_logits, const void* hidden,
    int64_t rows, double row_scale, float* dhidden) {
  const int64_t vocab = weights_.config.vocab_size;
  const int64_t hidden_size = weights_.config.hidden_size;
  const int64_t act_bytes = weights_.dtype == DType::kBF16 ? 2 : 4;
  const kernels::Backend& ops = *weights_.backend;
  MemorySpace& memory = ops.memory();
  const int64_t stats_bytes = rows * static_cast<int64_t>(sizeof(KlLossRow));
  SWIFTKV_RETURN_IF_ERROR(teacher_.Grow(tile_rows_ * vocab * 4, "teacher logits", memory));
  SWIFTKV_RETURN_IF_ERROR(student_.Grow(tile_rows_ * vocab * 4, "student logits", memory));
  SWIFTKV_RETURN_IF_ERROR(dlogits_.Grow(tile_rows_ * vocab * act_bytes, "logit gradients", memory));
  SWIFTKV_RETURN_IF_ERROR(stats_.Grow(stats_bytes, "losses of rows", memory));
  for (int64_t begin = 0; begin < rows; begin += tile_rows_) {
    const int64_t count = std::min(tile_rows_, rows - begin);
    teacher_logits(begin, count, teacher_.as<float>());
    ops.Gemm({.x = static_cast<const std::byte*>(hidden) + begin * hidden_size * act_bytes,
              .x_stride = hidden_size,
              .m = count,
              .w = &weights_.lm_head,
              .y = student_.data(),
              .y_stride = vocab});
    ops.backward().KlLoss({.teacher = teacher_.as<float>(),
                           .student = student_.as<float>(),
                           .rows = count,
                           .vocab = vocab,
                           .temperature = static_cast<float>(temperature_),
                           .row_scale = static_cast<float>(row_scale),
                           .dlogits = dlogits_.data(),
                           .dtype = weights_.dtype,
                           .stats = stats_.as<KlLossRow>() + begin});
    ops.Gemm({.x = dlogits_.data(),
              .x_stride = vocab,
              .m = count,
              .w = &lm_head_transposed_,
              .y = dhidden + begin * hidden_size,
              .y_stride = hidden_size});
  }
  std::vector<KlLossRow> stats(static_cast<size_t>(rows));
  memory.Read(stats.data(), stats_.data(), stats_bytes);
  return SumsOf(stats);
}

}  // namespace swiftkv
