#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <numbers>

namespace swiftkv {
namespace {

// Long wavelengths are stretched by `factor`, short ones kept, those between blended (Llama 3.1).
double Llama3Frequency(double frequency, const RopeConfig& rope) {
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  if (wavelength < original / rope.high_freq_factor) return frequency;
  const double smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * frequency / rope.factor + smooth * frequency;
}

// The dimension whose wavelength turns `rotations` times within the original context.
double YarnCorrectionDimension(double rotations, int64_t head_dim, const RopeConfig& rope) {
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  return static_cast<double>(head_dim) * std::log(original / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.rope_theta));
}

// Fast dimensions keep their frequency, slow ones are interpolated, with a linear ramp between (arXiv 2309.00071).
void ApplyYarn(int64_t head_dim, const RopeConfig& rope, std::vector<double>* frequencies) {
  double low = YarnCorrectionDimension(rope.beta_fast, head_dim, rope);
  double high = YarnCorrectionDimension(rope.beta_slow, head_dim, rope);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies->size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    double& frequency = (*frequencies)[i];
    frequency = frequency / rope.factor * ramp + frequency * (1 - ramp);
  }
}

double YarnMscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

}  // namespace

std::vector<double> RopeInverseFrequencies(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  std::vector<double> frequencies(static_cast<size_t>(config.head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(rope.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
  }
  switch (rope.rope_type) {
    case RopeType::kDefault:
      break;
    case RopeType::kLinear:
      for (double& frequency : frequencies) frequency /= rope.factor;
      break;
    case RopeType::kLlama3:
      for (double& frequency : frequencies) frequency = Llama3Frequency(frequency, rope);
      break;
    case RopeType::kYarn:
      ApplyYarn(config.head_dim, rope, &frequencies);
      break;
  }
  return frequencies;
}

double RopeAttentionFactor(const RopeConfig& rope) {
  if (rope.rope_type != RopeType::kYarn) return 1;
  if (rope.attention_factor) return *rope.attention_factor;
  // As in transformers, 0 counts as absent.
  const double mscale = rope.mscale.value_or(0);
  const double mscale_all_dim = rope.mscale_all_dim.value_or(0);
  if (mscale == 0 || mscale_all_dim == 0) return YarnMscale(rope.factor, 1);
  return YarnMscale(rope.factor, mscale) / YarnMscale(rope.factor, mscale_all_dim);
}

RopeTable::RopeTable(const ModelConfig& config)
    : inverse_frequencies_(RopeInverseFrequencies(config)),
      attention_factor_(RopeAttentionFactor(config.rope)),
      max_positions_(config.max_position_embeddings) {}

Status RopeTable::Grow(int64_t positions) {
  if (positions <= positions_) return Ok();
  // Doubling: a sequence that grows token by token rarely comes here.
  const int64_t grown = std::min(max_positions_, std::max({positions, 2 * positions_, int64_t{512}}));
  const size_t half = inverse_frequencies_.size();
  try {
    cos_.resize(static_cast<size_t>(grown) * half);
    sin_.resize(static_cast<size_t>(grown) * half);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("rotary embedding: no memory for {} positions", grown);
  }
  for (int64_t position = positions_; position < grown; ++position) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * inverse_frequencies_[i];
      const size_t at = static_cast<size_t>(position) * half + i;
      cos_[at] = static_cast<float>(std::cos(angle) * attention_factor_);
      sin_[at] = static_cast<float>(std::sin(angle) * attention_factor_);
    }
  }
  positions_ = grown;
  return Ok();
}

}  // namespace swiftkv
