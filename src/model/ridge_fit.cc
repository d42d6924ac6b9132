#include "model/ridge_fit.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/parallel.h"

namespace swiftkv {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// out [columns, rows] = transposed x [rows, columns], row t of x multiplied by weights[t] where there are weights.
void Transpose(const float* x, int64_t x_stride, int64_t rows, int64_t columns, std::span<const float> weights,
               std::vector<float>* out) {
  constexpr int64_t kColumns = 32;
  out->resize(static_cast<size_t>(rows * columns));
  ParallelFor((columns + kColumns - 1) / kColumns, [&](int64_t block) {
    const int64_t end = std::min(columns, (block + 1) * kColumns);
    for (int64_t row = 0; row < rows; ++row) {
      const float weight = weights.empty() ? 1.0f : weights[static_cast<size_t>(row)];
      for (int64_t column = block * kColumns; column < end; ++column) {
        (*out)[static_cast<size_t>(column * rows + row)] = weight * x[row * x_stride + column];
      }
    }
  });
}

void Accumulate(const std::vector<float>& tile, std::vector<double>* sums) {
  constexpr size_t kPiece = 1 << 16;
  ParallelFor(static_cast<int64_t>((sums->size() + kPiece - 1) / kPiece), [&](int64_t piece) {
    const size_t begin = static_cast<size_t>(piece) * kPiece;
    const size_t end = std::min(sums->size(), begin + kPiece);
    for (size_t i = begin; i < end; ++i) (*sums)[i] += static_cast<double>(tile[i]);
  });
}

}  // namespace

Status RidgeTile::SetInputs(const kernels::Backend& backend, const float* x, int64_t tokens, int64_t inputs) {
  if (tokens != tokens_ || inputs != inputs_) {
    SWIFTKV_ASSIGN_OR_RETURN(packed_, backend.AllocatePacked(inputs, tokens, DType::kF32));
  }
  backend_ = &backend;
  tokens_ = tokens;
  inputs_ = inputs;
  Transpose(x, inputs, tokens, inputs, {}, &transposed_);
  backend.PackRows(transposed_.data(), 0, inputs, &packed_);
  return Ok();
}

void RidgeTile::Multiply(const std::vector<float>& left, int64_t rows) {
  scratch_.resize(static_cast<size_t>(rows * inputs_));
  backend_->Gemm({.x = left.data(),
                  .x_stride = tokens_,
                  .m = rows,
                  .w = &packed_,
                  .y = scratch_.data(),
                  .y_stride = inputs_,
                  .y_dtype = DType::kF32});
}

RidgeSums::RidgeSums(int64_t inputs, int64_t outputs)
    : inputs_(inputs),
      outputs_(outputs),
      x_(static_cast<size_t>(inputs)),
      y_(static_cast<size_t>(outputs)),
      yy_(static_cast<size_t>(outputs)),
      gram_(static_cast<size_t>(inputs * inputs)),
      cross_(static_cast<size_t>(outputs * inputs)) {}

void RidgeSums::Add(RidgeTile* tile, const float* y, int64_t y_stride, std::span<const float> weights) {
  assert(tile->inputs_ == inputs_ && static_cast<int64_t>(weights.size()) == tile->tokens_);
  const int64_t tokens = tile->tokens_;
  for (const float weight : weights) weight_ += static_cast<double>(weight);

  Transpose(y, y_stride, tokens, outputs_, weights, &tile->left_);
  for (int64_t output = 0; output < outputs_; ++output) {
    for (int64_t t = 0; t < tokens; ++t) {
      const auto weighted = static_cast<double>(tile->left_[static_cast<size_t>(output * tokens + t)]);
      y_[static_cast<size_t>(output)] += weighted;
      yy_[static_cast<size_t>(output)] += weighted * static_cast<double>(y[t * y_stride + output]);
    }
  }
  tile->Multiply(tile->left_, outputs_);
  Accumulate(tile->scratch_, &cross_);

  tile->left_.resize(tile->transposed_.size());
  for (int64_t input = 0; input < inputs_; ++input) {
    const float* row = tile->transposed_.data() + input * tokens;
    float* weighted = tile->left_.data() + input * tokens;
    for (int64_t t = 0; t < tokens; ++t) {
      weighted[t] = weights[static_cast<size_t>(t)] * row[t];
      x_[static_cast<size_t>(input)] += static_cast<double>(weighted[t]);
    }
  }
  tile->Multiply(tile->left_, inputs_);
  Accumulate(tile->scratch_, &gram_);
}

Result<RidgeSolution> RidgeSums::Solve(double lambda, bool intercept) const {
  using Vector = Eigen::VectorXd;
  if (!(weight_ > 0)) return InvalidInput("calibration saw no tokens");
  RowMajor gram = Eigen::Map<const RowMajor>(gram_.data(), inputs_, inputs_);
  RowMajor cross = Eigen::Map<const RowMajor>(cross_.data(), outputs_, inputs_);
  const Vector x_mean = Eigen::Map<const Vector>(x_.data(), inputs_) / weight_;
  const Vector y_mean = Eigen::Map<const Vector>(y_.data(), outputs_) / weight_;
  Vector y_energy = Eigen::Map<const Vector>(yy_.data(), outputs_);
  const Vector variance = y_energy - weight_ * y_mean.cwiseAbs2();
  if (intercept) {
    gram -= weight_ * x_mean * x_mean.transpose();
    cross -= weight_ * y_mean * x_mean.transpose();
    y_energy = variance;
  }
  if (!gram.allFinite() || !cross.allFinite()) return InvalidInput("the teacher's states are not finite");

  RowMajor ridged = gram;
  ridged.diagonal().array() += lambda * std::max(gram.diagonal().mean(), 1e-30);
  const Eigen::LLT<Eigen::Ref<RowMajor>> cholesky(ridged);  // in place
  if (cholesky.info() != Eigen::Success) {
    return InvalidInput("the calibration text is too short or too uniform to fit; give more text or a larger lambda");
  }
  const RowMajor weight = cholesky.solve(cross.transpose()).transpose();

  RidgeSolution solution;
  const Vector residual =
      y_energy - 2 * weight.cwiseProduct(cross).rowwise().sum() + (weight * gram).cwiseProduct(weight).rowwise().sum();
  solution.residual.assign(residual.begin(), residual.end());
  solution.variance.assign(variance.begin(), variance.end());
  solution.weight.resize(static_cast<size_t>(outputs_ * inputs_));
  Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(solution.weight.data(), outputs_,
                                                                                    inputs_) = weight.cast<float>();
  if (intercept) {
    const Vector b = y_mean - weight * x_mean;
    solution.intercept.assign(b.begin(), b.end());
  }
  return solution;
}

}  // namespace swiftkv
