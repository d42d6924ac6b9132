// Weighted ridge regression of many outputs on shared inputs, in closed form:
//
//   minimise  sum_t w_t |y_t - W x_t - b|²  +  lambda mean(diag G) |W|²,   G = sum_t w_t x_t x_tᵀ
//   W = (sum_t w_t y_t x_tᵀ) (G + lambda mean(diag G) I)⁻¹
//
// Tiles of tokens are multiplied in float32 by the backend's GEMM and added up in double. The intercept b (optional)
// is not penalised: the same formula on inputs and outputs around their weighted means.
//
//   RidgeTile tile;
//   SWIFTKV_RETURN_IF_ERROR(tile.SetInputs(backend, x, tokens, inputs));      // once for all fits on these inputs
//   SWIFTKV_RETURN_IF_ERROR(sums.Add(&tile, y, y_stride, weights));            // for each fit, for each tile
//   SWIFTKV_ASSIGN_OR_RETURN(RidgeSolution fit, sums.Solve(1e-3, false));
#ifndef SWIFTKV_MODEL_RIDGE_FIT_H_
#define SWIFTKV_MODEL_RIDGE_FIT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/ops.h"

namespace swiftkv {

// One tile's inputs, laid out for the sums, and scratch memory that all fits share.
class RidgeTile {
 public:
  // x [tokens, inputs], adjacent rows.
  Status SetInputs(const kernels::Backend& backend, const float* x, int64_t tokens, int64_t inputs);

 private:
  friend class RidgeSums;
  // scratch_ [rows, inputs] = left [rows, tokens] times the inputs.
  void Multiply(const std::vector<float>& left, int64_t rows);

  const kernels::Backend* backend_ = nullptr;
  int64_t tokens_ = 0;
  int64_t inputs_ = 0;
  std::vector<float> transposed_;  // [inputs, tokens]
  kernels::PackedMatrix packed_;   // the same, as the right-hand side of GEMMs
  std::vector<float> left_;        // weighted, transposed inputs or outputs
  std::vector<float> scratch_;
};

struct RidgeSolution {
  std::vector<float> weight;     // [outputs, inputs]
  std::vector<float> intercept;  // [outputs], or empty
  std::vector<double> residual;  // [outputs]: sum_t w_t (y - W x - b)², without the penalty
  std::vector<double> variance;  // [outputs]: sum_t w_t (y - mean y)²
};

class RidgeSums {
 public:
  RidgeSums(int64_t inputs, int64_t outputs);

  // Adds the tile's tokens. y [tokens, outputs], rows y_stride apart; weights [tokens], not negative.
  void Add(RidgeTile* tile, const float* y, int64_t y_stride, std::span<const float> weights);

  // Error kInvalidInput: the sums are not finite, or all weights were 0.
  Result<RidgeSolution> Solve(double lambda, bool intercept) const;

 private:
  int64_t inputs_;
  int64_t outputs_;
  double weight_ = 0;          // sum w
  std::vector<double> x_;      // [inputs] sum w x
  std::vector<double> y_;      // [outputs] sum w y
  std::vector<double> yy_;     // [outputs] sum w y²
  std::vector<double> gram_;   // [inputs, inputs] sum w x xᵀ
  std::vector<double> cross_;  // [outputs, inputs] sum w y xᵀ
};

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_RIDGE_FIT_H_
