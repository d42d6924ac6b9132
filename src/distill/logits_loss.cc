#include "distill/logits_loss.h"

#include <algorithm>

namespace swiftkv {
namespace {

// Enough rows to use each panel of lm_head well, few enough that two tiles of logits stay near the cores.
constexpr int64_t kTileRows = 128;

}  // namespace

LogitsLoss::LogitsLoss(const Weights& weights, const kernels::PackedMatrix& lm_head_transposed, double temperature)
    : weights_(weights),
      lm_head_transposed_(lm_head_transposed),
      temperature_(temperature),
      stats_(static_cast<size_t>(kTileRows)) {}

Result<LogitsLossSums> LogitsLoss::Run(
    const std::function<void(int64_t begin, int64_t count, float* out)>& teacher_logits, const void* hidden,
    int64_t rows, double row_scale, float* dhidden) {
  const int64_t vocab = weights_.config.vocab_size;
  const int64_t hidden_size = weights_.config.hidden_size;
  const int64_t act_bytes = weights_.dtype == DType::kBF16 ? 2 : 4;
  if (teacher_.bytes() == 0) {
    SWIFTKV_ASSIGN_OR_RETURN(teacher_, AlignedBuffer::Allocate(kTileRows * vocab * 4, "teacher logits"));
    SWIFTKV_ASSIGN_OR_RETURN(student_, AlignedBuffer::Allocate(kTileRows * vocab * 4, "student logits"));
    SWIFTKV_ASSIGN_OR_RETURN(dlogits_, AlignedBuffer::Allocate(kTileRows * vocab * act_bytes, "logit gradients"));
  }
  const kernels::Backend& ops = *weights_.backend;
  LogitsLossSums sums;
  for (int64_t begin = 0; begin < rows; begin += kTileRows) {
    const int64_t count = std::min(kTileRows, rows - begin);
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
                           .stats = stats_.data()});
    ops.Gemm({.x = dlogits_.data(),
              .x_stride = vocab,
              .m = count,
              .w = &lm_head_transposed_,
              .y = dhidden + begin * hidden_size,
              .y_stride = hidden_size});
    for (int64_t r = 0; r < count; ++r) {
      sums.loss += stats_[static_cast<size_t>(r)].loss;
      sums.agree += stats_[static_cast<size_t>(r)].agree ? 1 : 0;
    }
    sums.rows += count;
  }
  return sums;
}

}  // namespace swiftkv
