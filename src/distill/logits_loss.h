// The distillation loss on logits, T² KL(teacher ‖ student), and its gradient with respect to the student's final
// hidden states. Logits exist for a tile of rows at a time: no [tokens, vocab] matrix is ever held.
#ifndef SWIFTKV_DISTILL_LOGITS_LOSS_H_
#define SWIFTKV_DISTILL_LOGITS_LOSS_H_

#include <cstdint>
#include <functional>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "kernels/ops.h"
#include "model/weights.h"

namespace swiftkv {

struct LogitsLossSums {
  double loss = 0;  // sum over rows of T² KL
  int64_t rows = 0;
  int64_t agree = 0;  // rows with the same most likely token
};

class LogitsLoss {
 public:
  // lm_head_transposed: [hidden, vocab]. Both must outlive this.
  LogitsLoss(const Weights& weights, const kernels::PackedMatrix& lm_head_transposed, double temperature);

  // All pointers are the backend's memory.
  // teacher_logits(begin, count, out): float32 [count, vocab] of the rows that count in the loss.
  // hidden: the student's final hidden states of those rows, after the last norm, act [rows, hidden].
  // dhidden: float32 [rows, hidden], the gradient of sum over rows of row_scale T² KL; overwritten.
  Result<LogitsLossSums> Run(const std::function<void(int64_t begin, int64_t count, float* out)>& teacher_logits,
                             const void* hidden, int64_t rows, double row_scale, float* dhidden);

 private:
  const Weights& weights_;
  const kernels::PackedMatrix& lm_head_transposed_;
  double temperature_;
  int64_t tile_rows_;
  AlignedBuffer teacher_;  // float32 [tile, vocab]
  AlignedBuffer student_;  // float32 [tile, vocab]
  AlignedBuffer dlogits_;  // act [tile, vocab]
  AlignedBuffer stats_;    // KlLossRow [rows]
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_LOGITS_LOSS_H_
