// The distance of the student's hidden states from the teacher's, beside the KL on logits (swiftkv.md section 4.2).
#ifndef SWIFTKV_DISTILL_HIDDEN_LOSS_H_
#define SWIFTKV_DISTILL_HIDDEN_LOSS_H_

#include <cstdint>
#include <span>

#include "distill/recipe.h"

namespace swiftkv {

// The loss summed over the rows of student and teacher, float32 [rows, size], each row divided by `tokens`, the rows
// that the mean is over. Adds `scale` times its gradient with respect to the student to dhidden [rows, size].
double HiddenLoss(HiddenLossKind kind, std::span<const float> student, std::span<const float> teacher, int64_t size,
                  int64_t tokens, double scale, float* dhidden);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_HIDDEN_LOSS_H_
