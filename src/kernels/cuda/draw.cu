// Draws of tokens, one block a row. A weight is e^((logit - max) / temperature) as a whole number of 2^-32, so that
// sums are the same in any order; thresholds are found byte by byte of the sorted bits of logits, without sorting.
#include "kernels/cuda/device-inl.h"
#include "kernels/cuda/draw.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kBins = 256;  // values of a byte
constexpr float kUnit = 4294967296.0f;

// Bits that sort as floats do; NaN is below everything, for a broken model must not break the draw.
__device__ uint32_t SortKey(float logit) {
  const uint32_t bits = __float_as_uint(logit);
  if (isnan(logit)) return 0;
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

struct Row {
  const float* logits;  // [vocab]
  int vocab;
  float max;
  float inverse_temperature;

  __device__ uint64_t Weight(float logit) const {
    if (isnan(logit)) return 0;
    return static_cast<uint64_t>(expf((logit - max) * inverse_temperature) * kUnit);
  }
};

__device__ uint64_t BlockSum64(uint64_t value) {
  return BlockReduce(value, uint64_t{0}, [](uint64_t a, uint64_t b) { return a + b; });
}

// The lowest key of the smallest set of likeliest tokens whose measure reaches `target`: the key of the last of them.
// `measure` of a logit at or above `floor`: 1 to count, or the weight.
template <typename Measure>
__device__ uint32_t Threshold(const Row& row, uint32_t floor, uint64_t target, const Measure& measure) {
  __shared__ unsigned long long bins[kBins];
  __shared__ uint32_t chosen;
  __shared__ uint64_t rest;
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    __syncthreads();
    if (threadIdx.x < kBins) bins[threadIdx.x] = 0;
    __syncthreads();
    const uint32_t decided = shift == 24 ? 0 : 0xffffffffu << (shift + 8);
    for (int i = static_cast<int>(threadIdx.x); i < row.vocab; i += kThreads) {
      const float logit = row.logits[i];
      const uint32_t key = SortKey(logit);
      if (key < floor || (key & decided) != prefix) continue;
      const uint64_t amount = measure(logit);
      if (amount > 0) atomicAdd(&bins[key >> shift & (kBins - 1)], static_cast<unsigned long long>(amount));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      uint64_t left = target;
      int bin = kBins - 1;
      while (bin > 0 && bins[bin] < left) left -= bins[bin--];
      chosen = static_cast<uint32_t>(bin);
      rest = left;
    }
    __syncthreads();
    prefix |= chosen << shift;
    target = rest;
  }
  return prefix;
}

// The first token, in their order, at which the weights so far exceed `target`.
__device__ int Pick(const Row& row, uint32_t floor, uint64_t target, int likeliest) {
  __shared__ uint64_t of_warps[kWarpSize];
  __shared__ int picked;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  if (threadIdx.x == 0) picked = likeliest;
  uint64_t before = 0;  // of all earlier rounds
  for (int begin = 0; begin < row.vocab; begin += kThreads) {
    const int i = begin + static_cast<int>(threadIdx.x);
    const float logit = i < row.vocab ? row.logits[i] : NAN;
    const uint64_t weight = SortKey(logit) >= floor ? row.Weight(logit) : 0;
    uint64_t sum = weight;  // of this warp's lanes up to this one
    for (int distance = 1; distance < kWarpSize; distance *= 2) {
      const uint64_t other = __shfl_up_sync(0xffffffffu, sum, distance);
      if (lane >= distance) sum += other;
    }
    __syncthreads();
    if (lane == kWarpSize - 1) of_warps[warp] = sum;
    __syncthreads();
    uint64_t round = 0;
    for (int w = 0; w < kWarpSize; ++w) {
      if (w < warp) sum += of_warps[w];
      round += of_warps[w];
    }
    if (weight > 0 && before + sum > target && before + sum - weight <= target) picked = i;
    before += round;
    if (before > target) break;
  }
  __syncthreads();
  return picked;
}

__global__ void __launch_bounds__(kThreads) DrawKernel(const DrawLaunch args) {
  const int64_t r = blockIdx.x;
  const TokenDraw draw = args.draws[r];
  const LogitStats stats = args.stats[r];
  if (!(draw.temperature > 0)) {
    if (threadIdx.x == 0) args.tokens[r] = stats.argmax;
    return;
  }
  const Row row{.logits = args.logits + r * args.vocab,
                .vocab = static_cast<int>(args.vocab),
                .max = stats.max,
                .inverse_temperature = 1 / draw.temperature};
  // Tokens that are less likely than min_p of the likeliest go first, then all but k, then the tail of top_p.
  uint32_t floor = 1;
  if (draw.min_p > 0) floor = SortKey(row.max + logf(draw.min_p) * draw.temperature);
  if (draw.top_k > 0 && draw.top_k < args.vocab) {
    const auto one = [](float) { return uint64_t{1}; };
    floor = max(floor, Threshold(row, floor, static_cast<uint64_t>(draw.top_k), one));
  }
  const auto weight = [&](float logit) { return row.Weight(logit); };
  const auto total = [&] {
    uint64_t sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < row.vocab; i += kThreads) {
      if (SortKey(row.logits[i]) >= floor) sum += row.Weight(row.logits[i]);
    }
    return BlockSum64(sum);
  };
  uint64_t mass = total();
  if (draw.top_p < 1) {
    const auto target = static_cast<uint64_t>(static_cast<double>(mass) * draw.top_p);
    floor = max(floor, Threshold(row, floor, max(target, uint64_t{1}), weight));
    mass = total();
  }
  const auto target = static_cast<uint64_t>(static_cast<double>(mass) * draw.uniform);
  const int token = Pick(row, floor, min(target, mass > 0 ? mass - 1 : 0), stats.argmax);
  if (threadIdx.x == 0) args.tokens[r] = token;
}

}  // namespace

void Draw(const DrawLaunch& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  DrawKernel<<<static_cast<unsigned>(args.rows), kThreads, 0, stream>>>(args);
}

}  // namespace swiftkv::kernels::cuda
