#include "model/group_fit.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <array>
#include <cmath>

#include "base/parallel.h"

namespace swiftkv {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Tokens that receive next to no attention still count this much (the mean is 1), so that every fit stays well posed.
constexpr float kLeastWeight = 0.02f;

// Rows [begin, begin + count) of a fit: the map, with the intercept as a last column (zero where there is none).
Matrix FitRows(const RidgeSolution& fit, int64_t inputs, int64_t begin, int64_t count) {
  Matrix rows = Matrix::Zero(count, inputs + 1);
  rows.leftCols(inputs) =
      Eigen::Map<const FloatMatrix>(fit.weight.data() + begin * inputs, count, inputs).cast<double>();
  if (!fit.intercept.empty()) {
    rows.col(inputs) = Eigen::Map<const Eigen::VectorXf>(fit.intercept.data() + begin, count).cast<double>();
  }
  return rows;
}

// The inverse of FitRows, into a projection's rows.
void StoreRows(const Matrix& rows, int64_t begin, std::vector<float>* weight, std::vector<float>* bias) {
  const int64_t inputs = rows.cols() - 1;
  Eigen::Map<FloatMatrix>(weight->data() + begin * inputs, rows.rows(), inputs) = rows.leftCols(inputs).cast<float>();
  if (bias->empty()) return;
  Eigen::Map<Eigen::VectorXf>(bias->data() + begin, rows.rows()) = rows.col(inputs).cast<float>();
}

}  // namespace

GroupFit::GroupFit(const ModelConfig& student, int64_t owner, TokenWeights weights)
    : config_(student), owner_(owner), group_(student.key_value_group_size), token_weights_(weights) {
  const int64_t units = weights == TokenWeights::kHead ? student.num_key_value_heads : 1;
  for (int64_t unit = 0; unit < units; ++unit) {
    sums_.emplace_back(student.hidden_size, group_ * 2 * student.kv_size() / units);
  }
  k_.resize(static_cast<size_t>(group_));
  v_.resize(static_cast<size_t>(group_));
  if (!aligned()) return;
  covariance_.resize(static_cast<size_t>(student.kv_size() / 2 * group_ * group_));
}

void GroupFit::SetKeysValues(int64_t index, std::span<const float> k, std::span<const float> v) {
  k_[static_cast<size_t>(index)].assign(k.begin(), k.end());
  v_[static_cast<size_t>(index)].assign(v.begin(), v.end());
}

void GroupFit::SetReceived(int64_t index, std::span<const float> received) {
  const int64_t rows = static_cast<int64_t>(received.size()) / config_.num_key_value_heads;
  if (index == 0) weights_.assign(static_cast<size_t>(units() * rows), 0.0f);
  for (int64_t unit = 0; unit < units(); ++unit) {
    for (int64_t t = 0; t < rows; ++t) {
      float mean = 0;
      for (int64_t head = unit * unit_heads(); head < (unit + 1) * unit_heads(); ++head) {
        mean += received[static_cast<size_t>(head * rows + t)] / static_cast<float>(unit_heads());
      }
      if (token_weights_ == TokenWeights::kUniform) mean = 1.0f;
      weights_[static_cast<size_t>(unit * rows + t)] += std::max(mean, kLeastWeight) / static_cast<float>(group_);
    }
  }
}

void GroupFit::AddCovariance(int64_t head, std::span<const float> weights) {
  const int64_t half = config_.head_dim / 2;
  ParallelFor(half, [&](int64_t pair) {
    std::vector<std::complex<double>> z(static_cast<size_t>(group_));
    std::complex<double>* out = covariance_.data() + (head * half + pair) * group_ * group_;
    for (size_t t = 0; t < weights.size(); ++t) {
      for (size_t a = 0; a < z.size(); ++a) {
        const float* x = k_[a].data() + static_cast<int64_t>(t) * config_.kv_size() + head * config_.head_dim;
        z[a] = {static_cast<double>(x[pair]), static_cast<double>(x[pair + half])};
      }
      for (size_t a = 0; a < z.size(); ++a) {
        for (size_t b = 0; b < z.size(); ++b) {
          out[a * z.size() + b] += static_cast<double>(weights[t]) * z[a] * std::conj(z[b]);
        }
      }
    }
  });
}

void GroupFit::Add(RidgeTile* tile) {
  const int64_t width = unit_heads() * config_.head_dim;
  const int64_t outputs = group_ * 2 * width;
  const int64_t rows = static_cast<int64_t>(weights_.size()) / units();
  std::vector<float> y(static_cast<size_t>(rows * outputs));
  for (int64_t unit = 0; unit < units(); ++unit) {
    for (int64_t t = 0; t < rows; ++t) {
      float* out = y.data() + t * outputs;
      for (size_t a = 0; a < k_.size(); ++a) {
        for (const std::vector<float>* from : {&k_[a], &v_[a]}) {
          out = std::copy_n(from->data() + t * config_.kv_size() + unit * width, width, out);
        }
      }
    }
    const auto weights =
        std::span<const float>(weights_).subspan(static_cast<size_t>(unit * rows), static_cast<size_t>(rows));
    sums_[static_cast<size_t>(unit)].Add(tile, y.data(), outputs, weights);
    if (!aligned()) continue;
    for (int64_t head = 0; head < unit_heads(); ++head) AddCovariance(unit * unit_heads() + head, weights);
  }
}

void GroupFit::ShareValues(int64_t head, std::span<const std::vector<float>> o_proj,
                           std::span<const RidgeSolution> fits, GroupSolution* solution) const {
  const int64_t dim = config_.head_dim;
  const int64_t heads_per_kv = config_.num_attention_heads / config_.num_key_value_heads;
  const RidgeSolution& fit = fits[static_cast<size_t>(head / unit_heads())];
  Matrix metric = Matrix::Zero(dim, dim);
  Matrix shared = Matrix::Zero(dim, config_.hidden_size + 1);
  for (int64_t a = 0; a < group_; ++a) {
    Matrix layer_metric = Matrix::Identity(dim, dim);
    if (group_ > 1) {
      const Eigen::Map<const FloatMatrix> o(o_proj[static_cast<size_t>(a)].data(), config_.hidden_size,
                                            config_.q_size());
      layer_metric.setZero();
      for (int64_t query = head * heads_per_kv; query < (head + 1) * heads_per_kv; ++query) {
        const Matrix columns = o.middleCols(query * dim, dim).cast<double>();
        layer_metric.noalias() += columns.transpose() * columns;
      }
      layer_metric.diagonal().array() += 1e-6 * layer_metric.diagonal().mean() + 1e-30;
    }
    const int64_t begin = ((a * 2 + 1) * unit_heads() + head % unit_heads()) * dim;
    metric += layer_metric;
    shared.noalias() += layer_metric * FitRows(fit, config_.hidden_size, begin, dim);
  }
  if (group_ > 1) shared = metric.llt().solve(shared).eval();
  StoreRows(shared, head * dim, &solution->v_weight, &solution->v_bias);
}

void GroupFit::ShareKeys(int64_t head, std::span<const RidgeSolution> fits, GroupSolution* solution) const {
  const int64_t dim = config_.head_dim;
  const int64_t half = dim / 2;
  const RidgeSolution& fit = fits[static_cast<size_t>(head / unit_heads())];
  Matrix shared = Matrix::Zero(dim, config_.hidden_size + 1);
  std::vector<Matrix> own;
  for (int64_t a = 0; a < group_; ++a) {
    own.push_back(FitRows(fit, config_.hidden_size, (a * 2 * unit_heads() + head % unit_heads()) * dim, dim));
    shared += own.back() / static_cast<double>(group_);
  }
  for (int64_t pair = 0; pair < half && aligned(); ++pair) {
    const int64_t place = head * half + pair;
    using Complex = Eigen::Matrix<std::complex<double>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::SelfAdjointEigenSolver<Complex> solver(
        Eigen::Map<const Complex>(covariance_.data() + place * group_ * group_, group_, group_));
    const Eigen::VectorXcd principal = solver.eigenvectors().col(group_ - 1);
    shared.row(pair).setZero();
    shared.row(pair + half).setZero();
    for (int64_t a = 0; a < group_; ++a) {
      const Matrix& rows = own[static_cast<size_t>(a)];
      const std::complex<double> factor = std::conj(principal[a]);
      shared.row(pair) += factor.real() * rows.row(pair) - factor.imag() * rows.row(pair + half);
      shared.row(pair + half) += factor.imag() * rows.row(pair) + factor.real() * rows.row(pair + half);
      solution->query_factor[static_cast<size_t>((a * config_.num_key_value_heads + head) * half + pair)] = factor;
    }
  }
  StoreRows(shared, head * dim, &solution->k_weight, &solution->k_bias);
}

Result<GroupSolution> GroupFit::Solve(double lambda, std::span<const std::vector<float>> o_proj) const {
  const int64_t dim = config_.head_dim;
  std::vector<RidgeSolution> fits;
  for (const RidgeSums& sums : sums_) {
    SWIFTKV_ASSIGN_OR_RETURN(fits.emplace_back(), sums.Solve(lambda, config_.qkv_bias));
  }
  GroupSolution solution;
  solution.k_weight.resize(static_cast<size_t>(config_.kv_size() * config_.hidden_size));
  solution.v_weight.resize(solution.k_weight.size());
  if (config_.qkv_bias) solution.k_bias.resize(static_cast<size_t>(config_.kv_size()));
  if (config_.qkv_bias) solution.v_bias.resize(static_cast<size_t>(config_.kv_size()));
  if (aligned()) {
    solution.query_factor.resize(static_cast<size_t>(group_ * config_.num_key_value_heads * dim / 2));
  }
  for (int64_t head = 0; head < config_.num_key_value_heads; ++head) {
    ShareKeys(head, fits, &solution);
    ShareValues(head, o_proj, fits, &solution);
  }
  for (int64_t a = 0; a < group_; ++a) {
    std::array<double, 2> residual{}, variance{};
    for (const RidgeSolution& fit : fits) {
      for (int64_t kind = 0; kind < 2; ++kind) {
        const int64_t width = unit_heads() * dim;
        for (int64_t i = (a * 2 + kind) * width; i < (a * 2 + kind + 1) * width; ++i) {
          residual[static_cast<size_t>(kind)] += fit.residual[static_cast<size_t>(i)];
          variance[static_cast<size_t>(kind)] += fit.variance[static_cast<size_t>(i)];
        }
      }
    }
    solution.fits.push_back({owner_ + a, residual[0] / variance[0], residual[1] / variance[1]});
  }
  return solution;
}

}  // namespace swiftkv
