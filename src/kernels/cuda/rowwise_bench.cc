// How near the row-wise kernels come to the memory's bandwidth, on the shapes of Llama-3.1-8B: microseconds of one call
// and GB/s of the bytes that it must move. Each call finds its inputs outside the L2 cache.
//
//   ./rowwise_bench
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/test_buffer.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int64_t kHidden = 4096;
constexpr int64_t kIntermediate = 14336;
constexpr int64_t kHeads = 32;
constexpr int64_t kKvHeads = 8;
constexpr int64_t kHeadDim = 128;
constexpr int64_t kVocab = 128256;
constexpr int64_t kMaxRows = 8192;
constexpr int64_t kPoolBytes = int64_t{10} << 30;
constexpr int64_t kFlushBytes = int64_t{256} << 20;  // larger than any L2 cache
constexpr int kCopies = 16;                          // of small buffers, one for each call between two events
constexpr int kWarmUps = 3;
constexpr int kSamples = 20;

// Memory for all cases, one after the other. Row r has position r, slot r and id r.
class Bench {
 public:
  Bench() : ids_(Counted<int32_t>()), slots_(Counted<int64_t>()) {
    size_t free = 0;
    size_t total = 0;
    CheckCuda(cudaMemGetInfo(&free, &total));
    pool_bytes_ = std::min(kPoolBytes, static_cast<int64_t>(free / 10 * 8));
    pool_ = Allocate(pool_bytes_);
    flush_ = Allocate(kFlushBytes);
    CheckCuda(cudaMemset(pool_, 0x3c, pool_bytes_));  // 0.01 in float32 and in bf16
    CheckCuda(cudaEventCreate(&begin_));
    CheckCuda(cudaEventCreate(&end_));
  }
  ~Bench() {
    CheckCuda(cudaEventDestroy(begin_));
    CheckCuda(cudaEventDestroy(end_));
    CheckCuda(cudaFree(flush_));
    CheckCuda(cudaFree(pool_));
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  const int32_t* ids() const { return ids_.get(); }
  const int64_t* slots() const { return slots_.get(); }

  // Prints the median of the time of call(memory), which has `bytes` of memory to itself and must move `moved`.
  void Run(const std::string& name, int64_t rows, int64_t bytes, int64_t moved,
           const std::function<void(std::byte*)>& call) {
    const int64_t distance = (bytes + 255) / 256 * 256;
    if (distance > pool_bytes_) {
      std::printf("%-22s %5ld  too large\n", name.c_str(), rows);
      return;
    }
    const int64_t copies = std::clamp<int64_t>(kFlushBytes / distance, 1, kCopies);
    std::vector<float> microseconds;
    for (int sample = 0; sample < kWarmUps + kSamples; ++sample) {
      // While the device is busy with it, the calls are queued.
      CheckCuda(cudaMemsetAsync(flush_, sample, kFlushBytes, nullptr));
      CheckCuda(cudaEventRecord(begin_, nullptr));
      for (int64_t copy = 0; copy < copies; ++copy) call(pool_ + copy * distance);
      CheckCuda(cudaEventRecord(end_, nullptr));
      CheckCuda(cudaEventSynchronize(end_));
      CheckCuda(cudaGetLastError());
      float milliseconds = 0;
      CheckCuda(cudaEventElapsedTime(&milliseconds, begin_, end_));
      if (sample >= kWarmUps) microseconds.push_back(milliseconds * 1e3f / static_cast<float>(copies));
    }
    std::nth_element(microseconds.begin(), microseconds.begin() + kSamples / 2, microseconds.end());
    const double median = microseconds[kSamples / 2];
    std::printf("%-22s %5ld %10.2f %8.0f\n", name.c_str(), rows, median, static_cast<double>(moved) / median * 1e-3);
  }

 private:
  template <typename T>
  static std::vector<T> Counted() {
    std::vector<T> values(kMaxRows);
    std::iota(values.begin(), values.end(), T{0});
    return values;
  }
  static std::byte* Allocate(int64_t bytes) {
    void* memory = nullptr;
    CheckCuda(cudaMalloc(&memory, bytes));
    return static_cast<std::byte*>(memory);
  }

  DeviceArray<int32_t> ids_;
  DeviceArray<int64_t> slots_;
  int64_t pool_bytes_ = 0;
  std::byte* pool_ = nullptr;
  std::byte* flush_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

template <typename T>
T* At(std::byte* memory, int64_t byte) {
  return reinterpret_cast<T*>(memory + byte);
}

int64_t BytesOf(DType dtype) { return dtype == DType::kF32 ? 4 : dtype == DType::kBF16 ? 2 : 1; }

const char* NameOf(DType dtype) { return dtype == DType::kF32 ? "f32" : dtype == DType::kBF16 ? "bf16" : "e4m3"; }

void RunRmsNorm(Bench* bench, int64_t rows, DType out_dtype) {
  const int64_t x_bytes = rows * kHidden * 4;
  const int64_t out_bytes = rows * kHidden * BytesOf(out_dtype);
  const int64_t weight_bytes = kHidden * 4;
  const int64_t bytes = x_bytes + weight_bytes + out_bytes;
  bench->Run(std::string("RmsNorm ") + NameOf(out_dtype), rows, bytes + rows * 4, bytes, [=](std::byte* memory) {
    RmsNorm({.x = At<float>(memory, 0),
             .x_stride = kHidden,
             .weight = At<float>(memory, x_bytes),
             .rows = rows,
             .size = kHidden,
             .out = memory + x_bytes + weight_bytes,
             .out_stride = kHidden,
             .out_dtype = out_dtype,
             .scales = At<float>(memory, bytes)},
            nullptr);
  });
}

void RunQuantizeRows(Bench* bench, int64_t rows, DType dtype) {
  const int64_t x_bytes = rows * kHidden * BytesOf(dtype);
  const int64_t bytes = x_bytes + rows * kHidden;
  bench->Run(std::string("QuantizeRows ") + NameOf(dtype), rows, bytes + rows * 4, bytes, [=](std::byte* memory) {
    QuantizeRows({.x = memory,
                  .x_stride = kHidden,
                  .x_dtype = dtype,
                  .rows = rows,
                  .size = kHidden,
                  .out = At<uint8_t>(memory, x_bytes),
                  .scales = At<float>(memory, bytes)},
                 nullptr);
  });
}

void RunSiluMul(Bench* bench, int64_t rows, DType out_dtype) {
  const int64_t in_bytes = rows * 2 * kIntermediate * 2;
  const int64_t bytes = in_bytes + rows * kIntermediate * BytesOf(out_dtype);
  bench->Run(std::string("SiluMul ") + NameOf(out_dtype), rows, bytes + rows * 4, bytes, [=](std::byte* memory) {
    SiluMul({.gate_up = memory,
             .gate_up_stride = 2 * kIntermediate,
             .rows = rows,
             .size = kIntermediate,
             .out = memory + in_bytes,
             .out_stride = kIntermediate,
             .out_dtype = out_dtype,
             .scales = At<float>(memory, bytes)},
            nullptr);
  });
}

void RunRotateAndStore(Bench* bench, int64_t rows, DType cache_dtype) {
  const int64_t q_bytes = rows * kHeads * kHeadDim * 4;
  const int64_t kv_bytes = rows * kKvHeads * kHeadDim * 4;
  const int64_t token_bytes = 2 * kKvHeads * kHeadDim * BytesOf(cache_dtype);
  const int64_t cache_bytes = (rows + kBlockTokens - 1) / kBlockTokens * kBlockTokens * token_bytes;
  const int64_t table_bytes = rows * kHeadDim / 2 * 4;
  const int64_t bytes = q_bytes + 2 * kv_bytes + cache_bytes + 2 * table_bytes;
  const int64_t moved = 2 * q_bytes + 2 * kv_bytes + 2 * table_bytes + rows * token_bytes;
  const std::string name = std::string("RotateAndStore ") + NameOf(cache_dtype);
  bench->Run(name, rows, bytes, moved, [=](std::byte* memory) {
    RotateAndStore({.q = At<float>(memory, 0),
                    .q_stride = kHeads * kHeadDim,
                    .heads = kHeads,
                    .k = At<float>(memory, q_bytes),
                    .v = At<float>(memory, q_bytes + kv_bytes),
                    .kv_stride = kKvHeads * kHeadDim,
                    .kv_heads = kKvHeads,
                    .head_dim = kHeadDim,
                    .rows = rows,
                    .positions = bench->ids(),
                    .cos = At<float>(memory, q_bytes + 2 * kv_bytes),
                    .sin = At<float>(memory, q_bytes + 2 * kv_bytes + table_bytes),
                    .slots = bench->slots(),
                    .cache = memory + q_bytes + 2 * kv_bytes + 2 * table_bytes,
                    .cache_dtype = cache_dtype},
                   nullptr);
  });
}

void RunCopies(Bench* bench, int64_t rows) {
  const int64_t row_bytes = kHidden * 4;
  const int64_t bytes = 2 * rows * row_bytes;
  bench->Run("GatherRows", rows, bytes, bytes, [=](std::byte* memory) {
    GatherRows(At<float>(memory, rows * row_bytes), kHidden, bench->ids(), rows, At<float>(memory, 0), nullptr);
  });
  bench->Run("AddBias f32", rows, (rows + 1) * row_bytes, bytes, [=](std::byte* memory) {
    AddBias(memory, DType::kF32, kHidden, At<float>(memory, rows * row_bytes), rows, kHidden, nullptr);
  });
}

void RunLogits(Bench* bench, int64_t rows) {
  const int64_t logits_bytes = rows * kVocab * 4;
  bench->Run("ComputeLogitStats", rows, logits_bytes + rows * 12, logits_bytes, [=](std::byte* memory) {
    ComputeLogitStats(At<float>(memory, 0), rows, kVocab, At<LogitStats>(memory, logits_bytes), nullptr);
  });
  bench->Run("KlDivergence", rows, 2 * logits_bytes + rows * 4, 2 * logits_bytes, [=](std::byte* memory) {
    KlDivergence(At<float>(memory, 0), At<float>(memory, logits_bytes), rows, kVocab,
                 At<float>(memory, 2 * logits_bytes), nullptr);
  });
}

void PrintTable() {
  Bench bench;
  std::printf("%-22s %5s %10s %8s\n", "kernel", "rows", "us", "GB/s");
  for (const int64_t rows : {int64_t{1}, int64_t{256}, kMaxRows}) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) RunRmsNorm(&bench, rows, dtype);
    for (const DType dtype : {DType::kF32, DType::kBF16}) RunQuantizeRows(&bench, rows, dtype);
    for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) RunSiluMul(&bench, rows, dtype);
    for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) RunRotateAndStore(&bench, rows, dtype);
    RunCopies(&bench, rows);
    RunLogits(&bench, rows);
  }
}

}  // namespace
}  // namespace swiftkv::kernels::cuda

int main() {
  if (swiftkv::kernels::cuda::HasDevice()) {
    swiftkv::kernels::cuda::PrintTable();
  } else {
    std::printf("no CUDA device\n");
  }
  return 0;
}
