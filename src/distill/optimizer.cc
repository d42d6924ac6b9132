#include "distill/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "base/parallel.h"

namespace swiftkv {
namespace {

constexpr int64_t kPiece = 16384;  // elements that one thread takes at a time

// Calls body(parameter, begin, end, piece) for every piece of every tensor; pieces are numbered in order.
template <class Body>
int64_t ForEachPiece(const Gradients& gradients, const Body& body) {
  struct Piece {
    size_t tensor;
    int64_t begin, end;
  };
  std::vector<Piece> pieces;
  for (size_t tensor = 0; tensor < gradients.size(); ++tensor) {
    const auto size = static_cast<int64_t>(gradients[tensor].size());
    for (int64_t begin = 0; begin < size; begin += kPiece) {
      pieces.push_back({tensor, begin, std::min(size, begin + kPiece)});
    }
  }
  const auto count = static_cast<int64_t>(pieces.size());
  ParallelFor(count, [&](int64_t i) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    body(piece.tensor, piece.begin, piece.end, i);
  });
  return count;
}

int64_t CountPieces(const Gradients& gradients) {
  int64_t count = 0;
  for (const auto& gradient : gradients) count += (static_cast<int64_t>(gradient.size()) + kPiece - 1) / kPiece;
  return count;
}

}  // namespace

double GradientNorm(const Gradients& gradients) {
  std::vector<double> squares(static_cast<size_t>(CountPieces(gradients)));
  ForEachPiece(gradients, [&](size_t tensor, int64_t begin, int64_t end, int64_t piece) {
    const float* g = gradients[tensor].data();
    double sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
    squares[static_cast<size_t>(piece)] = sum;
  });
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

void AdamWStep(const AdamWOptions& options, double learning_rate, int64_t step, double gradient_scale,
               const Gradients& gradients, std::vector<Parameter>* parameters) {
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(step));
  const auto scale = static_cast<float>(gradient_scale);
  const auto beta1 = static_cast<float>(options.beta1);
  const auto beta2 = static_cast<float>(options.beta2);
  const auto rest1 = static_cast<float>(1 - options.beta1);
  const auto rest2 = static_cast<float>(1 - options.beta2);
  const auto keep = static_cast<float>(1 - learning_rate * options.weight_decay);
  const auto step_size = static_cast<float>(learning_rate / correction1);
  const auto root = static_cast<float>(1 / std::sqrt(correction2));
  const auto epsilon = static_cast<float>(options.epsilon);
  ForEachPiece(gradients, [&](size_t tensor, int64_t begin, int64_t end, int64_t /*piece*/) {
    Parameter& parameter = (*parameters)[tensor];
    const float* g = gradients[tensor].data();
    float* value = parameter.value.data();
    float* m = parameter.first_moment.data();
    float* v = parameter.second_moment.data();
    for (int64_t i = begin; i < end; ++i) {
      const float gradient = g[i] * scale;
      m[i] = beta1 * m[i] + rest1 * gradient;
      v[i] = beta2 * v[i] + rest2 * gradient * gradient;
      value[i] = value[i] * keep - step_size * m[i] / (std::sqrt(v[i]) * root + epsilon);
    }
  });
}

double LearningRate(const ScheduleOptions& options, int64_t done) {
  const auto steps = static_cast<double>(options.steps);
  const auto warmup = static_cast<double>(options.warmup_steps);
  const auto at = static_cast<double>(done);
  if (at < warmup) return options.learning_rate * at / std::max(1.0, warmup);
  if (options.kind == ScheduleKind::kConstant) return options.learning_rate;
  const double progress = std::clamp((at - warmup) / std::max(1.0, steps - warmup), 0.0, 1.0);
  const double share =
      options.kind == ScheduleKind::kLinear ? 1 - progress : 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return options.learning_rate * (options.min_ratio + (1 - options.min_ratio) * share);
}

}  // namespace swiftkv
