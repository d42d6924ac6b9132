// What the CPUs' twins have in common of the backward operations: plain loops, which memory's speed bounds.
#include "kernels/backward_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/bfloat16.h"
#include "base/parallel.h"
#include "kernels/transpose.h"

namespace swiftkv::kernels {
namespace {

constexpr int64_t kPiece = 16384;      // elements that one thread takes at a time
constexpr int64_t kStripColumns = 64;  // of a transpose, that one thread takes at a time

int64_t Pieces(int64_t size) { return (size + kPiece - 1) / kPiece; }

// Rows [begin, begin + count) of out.
template <class T>
void TransposeStrip(const TransposeArgs& args, int64_t begin, int64_t count) {
  TransposePieces(static_cast<const T*>(args.x) + begin, args.x_stride, args.rows, count,
                  static_cast<T*>(args.out) + begin * args.out_stride, args.out_stride, [](T value) { return value; });
}

}  // namespace

void BackwardOps::Transpose(const TransposeArgs& args) const {
  ParallelFor((args.columns + kStripColumns - 1) / kStripColumns, [&](int64_t strip) {
    const int64_t begin = strip * kStripColumns;
    const int64_t count = std::min(kStripColumns, args.columns - begin);
    if (args.dtype == DType::kBF16) {
      TransposeStrip<BFloat16>(args, begin, count);
    } else {
      TransposeStrip<float>(args, begin, count);
    }
  });
}

void BackwardOps::AddColumnSums(const ColumnSumsArgs& args) const {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* row = args.x + r * args.x_stride;
    for (int64_t i = 0; i < args.size; ++i) args.sums[i] += row[i];
  }
}

void BackwardOps::ScatterRows(const ScatterRowsArgs& args) const {
  for (int64_t i = 0; i < args.count; ++i) {
    std::memcpy(args.out + args.rows[i] * args.size, args.x + i * args.size,
                static_cast<size_t>(args.size) * sizeof(float));
  }
}

void BackwardOps::HiddenLoss(const HiddenLossArgs& args) const {
  double loss = 0;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* s = args.student + r * args.size;
    const float* t = args.teacher + r * args.size;
    float* dhidden = args.dhidden + r * args.size;
    double square = 0;
    double teacher_square = 0;
    for (int64_t i = 0; i < args.size; ++i) {
      const double difference = static_cast<double>(s[i]) - static_cast<double>(t[i]);
      square += difference * difference;
      teacher_square += static_cast<double>(t[i]) * static_cast<double>(t[i]);
    }
    // A teacher's row of zeros has nothing to be relative to.
    const double unit = args.relative ? std::max(teacher_square, 1e-30) : static_cast<double>(args.size);
    const double weight = 1 / (unit * static_cast<double>(args.tokens));
    loss += square * weight;
    const auto factor = static_cast<float>(2 * weight * args.scale);
    for (int64_t i = 0; i < args.size; ++i) dhidden[i] += factor * (s[i] - t[i]);
  }
  *args.loss += loss;
}

void BackwardOps::SumOfSquares(const SumOfSquaresArgs& args) const {
  std::vector<double> squares(static_cast<size_t>(Pieces(args.size)));
  ParallelFor(Pieces(args.size), [&](int64_t piece) {
    double sum = 0;
    for (int64_t i = piece * kPiece; i < std::min(args.size, (piece + 1) * kPiece); ++i) {
      sum += static_cast<double>(args.x[i]) * static_cast<double>(args.x[i]);
    }
    squares[static_cast<size_t>(piece)] = sum;
  });
  for (const double square : squares) *args.sum += square;
}

void BackwardOps::AdamW(const AdamWArgs& args) const {
  float* const value = args.value;
  float* const m = args.first_moment;
  float* const v = args.second_moment;
  auto* const rounded = static_cast<BFloat16*>(args.rounded);
  ParallelFor(Pieces(args.size), [&](int64_t piece) {
    const int64_t begin = piece * kPiece;
    const int64_t end = std::min(args.size, begin + kPiece);
    for (int64_t i = begin; i < end; ++i) {
      const float gradient = args.gradient[i] * args.gradient_scale;
      m[i] = args.beta1 * m[i] + args.rest1 * gradient;
      v[i] = args.beta2 * v[i] + args.rest2 * gradient * gradient;
      value[i] = value[i] * args.keep - args.step_size * m[i] / (std::sqrt(v[i]) * args.root + args.epsilon);
    }
    for (int64_t i = begin; i < end && rounded != nullptr; ++i) rounded[i] = ToBFloat16(value[i]);
  });
}

}  // namespace swiftkv::kernels
