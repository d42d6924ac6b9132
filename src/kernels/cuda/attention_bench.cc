// Times of attention on the GPU: `attention_bench [wgmma|mma]`, the second without the kernel for Hopper.
//
// A line of prefill: rows of each sequence, and the position of the first; FLOP are 4 * heads * head_dim for each pair
// of a row and a token that it attends to. A line of decode: bytes of K and V that must be read.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "base/bfloat16.h"
#include "kernels/cuda/attention_hopper.h"
#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int64_t kHeads = 32;
constexpr int64_t kKvHeads = 8;
constexpr int64_t kHeadDim = 128;
constexpr int kWarmUps = 3;
constexpr int kRuns = 20;
// Caches that are read in turn, so that none is still in the L2 cache when it is read again.
constexpr int64_t kBytesBetweenReads = int64_t{256} << 20;

void* Allocate(int64_t bytes) {
  void* data = nullptr;
  if (cudaMalloc(&data, bytes) != cudaSuccess || cudaMemset(data, 0, bytes) != cudaSuccess) {
    std::fprintf(stderr, "no %lld bytes of device memory\n", static_cast<long long>(bytes));
    std::exit(1);
  }
  return data;
}

template <typename T>
T* Upload(const std::vector<T>& values) {
  void* data = Allocate(static_cast<int64_t>(values.size() * sizeof(T)));
  cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
  return static_cast<T*>(data);
}

// Values between -2 and 2: products of zeros would be faster than the device's power allows.
void FillWithRandomValues(DType dtype, void* data, int64_t bytes) {
  std::mt19937 engine(1);
  std::vector<uint16_t> pattern(int64_t{1} << 22);
  for (uint16_t& bits : pattern) {
    const auto random = static_cast<uint16_t>(engine());
    bits = dtype == DType::kBF16 ? ToBFloat16(static_cast<float>(random) / 16384 - 2).bits : random & 0xbfbf;
  }
  for (int64_t begin = 0; begin < bytes;) {
    const int64_t size = std::min(bytes - begin, static_cast<int64_t>(pattern.size() * sizeof(uint16_t)));
    cudaMemcpy(static_cast<std::byte*>(data) + begin, pattern.data(), size, cudaMemcpyHostToDevice);
    begin += size;
  }
}

// Milliseconds of one call, the median of kRuns times `repeats`. `run` gets the number of its call.
double Time(int repeats, const std::function<void(int)>& run) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  for (int i = 0; i < kWarmUps + kRuns; ++i) {
    cudaEventRecord(begin);
    for (int j = 0; j < repeats; ++j) run(i * repeats + j);
    cudaEventRecord(end);
    cudaEventSynchronize(end);
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, begin, end);
    if (i >= kWarmUps) times.push_back(milliseconds / static_cast<float>(repeats));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    std::exit(1);
  }
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

// `count` sequences of `rows` rows after `past` tokens, and `copies` of their caches with tables of shuffled blocks.
struct Workload {
  Workload(DType dtype, int64_t count, int64_t rows, int64_t past, int64_t copies) {
    const int64_t blocks = (past + rows + kBlockTokens - 1) / kBlockTokens;
    const int64_t block_bytes = 2 * kKvHeads * kBlockTokens * kHeadDim * (dtype == DType::kBF16 ? 2 : 1);
    const int64_t size = kHeads * kHeadDim;
    cache = Allocate(copies * count * blocks * block_bytes);
    FillWithRandomValues(dtype, cache, copies * count * blocks * block_bytes);
    std::vector<int32_t> positions(rows);
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(past));
    device_positions = Upload(positions);
    std::vector<int32_t> table(copies * count * blocks);
    // A step that shares no factor with the number of blocks visits them all.
    int64_t step = 7919;
    while (std::gcd(step, static_cast<int64_t>(table.size())) != 1) ++step;
    for (size_t b = 0; b < table.size(); ++b) table[b] = static_cast<int32_t>(b * step % table.size());
    device_table = Upload(table);
    std::vector<AttentionSequence> all;
    for (int64_t s = 0; s < copies * count; ++s) {
      all.push_back({.row_begin = s % count * rows,
                     .rows = rows,
                     .positions = device_positions,
                     .block_table = device_table + s * blocks});
    }
    sequences = Upload(all);
    std::vector<float> queries(count * rows * size);
    for (size_t i = 0; i < queries.size(); ++i) queries[i] = static_cast<float>(i * 2654435761u % 2048) / 1024 - 1;
    q = Upload(queries);
    out = Allocate(static_cast<int64_t>(queries.size()) * 2);
    workspace = Allocate(DecodeWorkspaceBytes(count, kHeads, kKvHeads, kHeadDim));
    args = {.q = q,
            .q_stride = size,
            .heads = kHeads,
            .kv_heads = kKvHeads,
            .head_dim = kHeadDim,
            .scale = 0.088f,
            .cache = static_cast<const std::byte*>(cache),
            .cache_dtype = dtype,
            .block_bytes = block_bytes,
            .sequences = sequences,
            .count = count,
            .max_rows = rows,
            .out = out,
            .out_stride = size,
            .workspace = workspace};
  }
  ~Workload() {
    for (void* data : {cache, out, workspace, static_cast<void*>(device_positions), static_cast<void*>(device_table),
                       static_cast<void*>(sequences), static_cast<void*>(q)}) {
      cudaFree(data);
    }
  }
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;

  AttentionLaunch OfCopy(int64_t copy) const {
    AttentionLaunch launch = args;
    launch.sequences += copy * args.count;
    return launch;
  }

  AttentionLaunch args;
  void* cache;
  void* out;
  void* workspace;
  int32_t* device_positions;
  int32_t* device_table;
  AttentionSequence* sequences;
  float* q;
};

void Prefill(DType dtype, int64_t count, int64_t rows, int64_t past) {
  const Workload workload(dtype, count, rows, past, 1);
  const bool hopper = HopperPrefillAttention(workload.args, nullptr);
  const double milliseconds = Time(1, [&](int) { PrefillAttention(workload.args, nullptr); });
  const double pairs = static_cast<double>(count) * rows * (past + (rows + 1) / 2.0);
  const double flop = 4.0 * kHeads * kHeadDim * pairs;
  std::printf("prefill %-5s %-4s %2lld x %5lld after %6lld: %9.3f ms %7.1f TFLOP/s\n", hopper ? "wgmma" : "mma",
              dtype == DType::kBF16 ? "bf16" : "e4m3", static_cast<long long>(count), static_cast<long long>(rows),
              static_cast<long long>(past), milliseconds, flop / milliseconds * 1e-9);
}

void Decode(DType dtype, int64_t count, int64_t context) {
  const int64_t bytes = 2 * count * context * kKvHeads * kHeadDim * (dtype == DType::kBF16 ? 2 : 1);
  const int64_t copies = std::max<int64_t>(1, kBytesBetweenReads / bytes);
  const Workload workload(dtype, count, 1, context - 1, copies);
  const double milliseconds = Time(10, [&](int i) { DecodeAttention(workload.OfCopy(i % copies), nullptr); });
  std::printf("decode        %-4s %3lld sequences of %6lld: %9.1f us %7.0f GB/s\n",
              dtype == DType::kBF16 ? "bf16" : "e4m3", static_cast<long long>(count), static_cast<long long>(context),
              milliseconds * 1e3, static_cast<double>(bytes) / milliseconds * 1e-6);
}

void RunAll() {
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    Prefill(dtype, 1, 2048, 0);
    Prefill(dtype, 4, 2048, 0);
    Prefill(dtype, 1, 8192, 0);
    Prefill(dtype, 1, 32768, 0);
    Prefill(dtype, 1, 8192, 120000);
  }
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const int64_t count : {1, 32, 256}) Decode(dtype, count, 2048);
    Decode(dtype, 1, 32768);
  }
}

}  // namespace
}  // namespace swiftkv::kernels::cuda

int main(int argc, char** argv) {
  swiftkv::kernels::cuda::ForceMmaAttention(argc > 1 && std::strcmp(argv[1], "mma") == 0);
  swiftkv::kernels::cuda::RunAll();
  return 0;
}
