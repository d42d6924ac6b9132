#include "distill/hidden_loss.h"

#include <algorithm>

namespace swiftkv {

double HiddenLoss(HiddenLossKind kind, std::span<const float> student, std::span<const float> teacher, int64_t size,
                  int64_t tokens, double scale, float* dhidden) {
  const auto rows = static_cast<int64_t>(student.size()) / size;
  double loss = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* s = student.data() + r * size;
    const float* t = teacher.data() + r * size;
    double square = 0;
    double teacher_square = 0;
    for (int64_t i = 0; i < size; ++i) {
      const double difference = static_cast<double>(s[i]) - static_cast<double>(t[i]);
      square += difference * difference;
      teacher_square += static_cast<double>(t[i]) * static_cast<double>(t[i]);
    }
    // A teacher's row of zeros has nothing to be relative to.
    const double unit = kind == HiddenLossKind::kMse ? static_cast<double>(size) : std::max(teacher_square, 1e-30);
    const double weight = 1 / (unit * static_cast<double>(tokens));
    loss += square * weight;
    const auto factor = static_cast<float>(2 * weight * scale);
    for (int64_t i = 0; i < size; ++i) dhidden[r * size + i] += factor * (s[i] - t[i]);
  }
  return loss;
}

}  // namespace swiftkv
