// Times of the backward operations on the GPU. Attention: FLOP are 10 * heads * head_dim for each pair of a row and a
// token that it attends to, though scores are computed twice. The others: bytes that must be read and written.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "base/bfloat16.h"
#include "kernels/cuda/backward.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int64_t kHeads = 32;
constexpr int64_t kKvHeads = 8;
constexpr int64_t kHeadDim = 128;
constexpr int kWarmUps = 2;
constexpr int kRuns = 10;

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

// Device memory of float32 or bf16 values between -1 and 1: products of zeros would be faster than the device's power
// allows.
template <typename T>
class Random {
 public:
  explicit Random(int64_t size) {
    Check(cudaMalloc(&data_, size * sizeof(T)));
    std::vector<T> pattern(std::min(size, int64_t{1} << 20));
    for (size_t i = 0; i < pattern.size(); ++i) {
      const float value = static_cast<float>(i * 2654435761u % 65536) / 32768 - 1;
      if constexpr (sizeof(T) == 4) {
        pattern[i] = value;
      } else {
        pattern[i] = ToBFloat16(value);
      }
    }
    for (int64_t begin = 0; begin < size; begin += static_cast<int64_t>(pattern.size())) {
      const int64_t count = std::min(size - begin, static_cast<int64_t>(pattern.size()));
      Check(cudaMemcpy(get() + begin, pattern.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }
  }
  ~Random() { cudaFree(data_); }
  Random(const Random&) = delete;
  Random& operator=(const Random&) = delete;
  T* get() const { return static_cast<T*>(data_); }

 private:
  void* data_ = nullptr;
};

// Milliseconds of one call, the median.
double Time(const std::function<void()>& run) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < kWarmUps + kRuns; ++i) {
    Check(cudaEventRecord(begin));
    run();
    Check(cudaEventRecord(end));
    Check(cudaEventSynchronize(end));
    float milliseconds = 0;
    Check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i >= kWarmUps) times.push_back(milliseconds);
  }
  Check(cudaGetLastError());
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

void Attention(int64_t count, int64_t length) {
  const int64_t rows = count * length, q_size = kHeads * kHeadDim, kv_size = kKvHeads * kHeadDim;
  const Random<float> q(rows * q_size), k(rows * kv_size), v(rows * kv_size), log_sum_exp(rows * kHeads);
  const Random<float> dq(rows * q_size), dk(rows * kv_size), dv(rows * kv_size);
  const Random<BFloat16> out(rows * q_size), dout(rows * q_size);
  std::vector<AttentionDocument> documents;
  for (int64_t i = 0; i < count; ++i) documents.push_back({i * length, length});
  const std::vector<AttentionBackwardTile> tiles = MakeAttentionBackwardTiles(documents);
  const Random<float> tile_memory(static_cast<int64_t>(tiles.size() * sizeof(AttentionBackwardTile) / sizeof(float)));
  auto* const device_tiles = reinterpret_cast<AttentionBackwardTile*>(tile_memory.get());
  Check(cudaMemcpy(device_tiles, tiles.data(), tiles.size() * sizeof(AttentionBackwardTile), cudaMemcpyHostToDevice));
  const AttentionBackwardArgs args{.q = q.get(),
                                   .q_stride = q_size,
                                   .k = k.get(),
                                   .v = v.get(),
                                   .kv_stride = kv_size,
                                   .rows = rows,
                                   .heads = kHeads,
                                   .kv_heads = kKvHeads,
                                   .head_dim = kHeadDim,
                                   .scale = 0.088f,
                                   .documents = documents,
                                   .out = out.get(),
                                   .dout = dout.get(),
                                   .out_stride = q_size,
                                   .dtype = DType::kBF16,
                                   .log_sum_exp = log_sum_exp.get(),
                                   .dq = dq.get(),
                                   .dq_stride = q_size,
                                   .dk = dk.get(),
                                   .dv = dv.get(),
                                   .dkv_stride = kv_size};
  const Random<float> workspace(AttentionBackwardWorkspaceBytes(args) / int64_t{sizeof(float)} + 1);
  auto* const work = reinterpret_cast<std::byte*>(workspace.get());
  const auto tile_count = static_cast<int64_t>(tiles.size());
  const double milliseconds = Time([&] { AttentionBackward(args, device_tiles, tile_count, work, nullptr); });
  const double pairs = static_cast<double>(count) * static_cast<double>(length) * static_cast<double>(length + 1) / 2;
  std::printf("attention %lld x %5lld rows, %lld/%lld heads of %lld: %8.3f ms %7.1f TFLOP/s\n",
              static_cast<long long>(count), static_cast<long long>(length), static_cast<long long>(kHeads),
              static_cast<long long>(kKvHeads), static_cast<long long>(kHeadDim), milliseconds,
              10.0 * kHeads * kHeadDim * pairs / milliseconds * 1e-9);
}

void Report(const char* what, double milliseconds, double bytes) {
  std::printf("%-42s %8.3f ms %7.0f GB/s\n", what, milliseconds, bytes / milliseconds * 1e-6);
}

void Kl() {
  constexpr int64_t kRows = 512, kVocab = 128256;
  const Random<float> teacher(kRows * kVocab), student(kRows * kVocab + 4);
  const Random<BFloat16> dlogits(kRows * kVocab);
  const Random<float> stats(kRows * int64_t{sizeof(KlLossRow) / sizeof(float)});
  const KlLossArgs args{.teacher = teacher.get(),
                        .student = student.get() + 4,
                        .rows = kRows,
                        .vocab = kVocab,
                        .temperature = 2,
                        .row_scale = 1.0f / kRows,
                        .dlogits = dlogits.get(),
                        .dtype = DType::kBF16,
                        .stats = reinterpret_cast<KlLossRow*>(stats.get())};
  Report("KlLoss 512 x 128256", Time([&] { KlLoss(args, nullptr); }), 10.0 * kRows * kVocab);
}

void Rows() {
  constexpr int64_t kRows = 8192, kSize = 4096, kMlp = 14336;
  const Random<float> x(kRows * kSize), dy(kRows * kSize), dx(kRows * kSize), weight(kSize), dweight(kSize);
  RmsNormBackwardArgs norm{.x = x.get(),
                           .x_stride = kSize,
                           .weight = weight.get(),
                           .eps = 1e-5f,
                           .rows = kRows,
                           .size = kSize,
                           .dy = dy.get(),
                           .dy_stride = kSize,
                           .dx = dx.get(),
                           .dx_stride = kSize};
  Report("RmsNorm 8192 x 4096", Time([&] { RmsNormBackward(norm, nullptr, nullptr); }), 12.0 * kRows * kSize);
  norm.dweight = dweight.get();
  const Random<float> workspace(RmsNormBackwardWorkspaceBytes(norm) / int64_t{sizeof(float)});
  auto* const work = reinterpret_cast<std::byte*>(workspace.get());
  Report("RmsNorm 8192 x 4096 with dweight", Time([&] { RmsNormBackward(norm, work, nullptr); }), 24.0 * kRows * kSize);
  const Random<BFloat16> gate_up(kRows * 2 * kMlp), dout(kRows * kMlp), dgate_up(kRows * 2 * kMlp);
  const SiluMulBackwardArgs silu{.gate_up = gate_up.get(),
                                 .gate_up_stride = 2 * kMlp,
                                 .rows = kRows,
                                 .size = kMlp,
                                 .dy = dout.get(),
                                 .dy_stride = kMlp,
                                 .dgate_up = dgate_up.get(),
                                 .dgate_up_stride = 2 * kMlp,
                                 .dtype = DType::kBF16};
  Report("SiluMul 8192 x 14336", Time([&] { SiluMulBackward(silu, nullptr); }), 10.0 * kRows * kMlp);
  const TransposeArgs transpose{.x = gate_up.get(),
                                .x_stride = kMlp,
                                .rows = kRows,
                                .columns = kMlp,
                                .out = dgate_up.get(),
                                .out_stride = kRows,
                                .dtype = DType::kBF16};
  Report("Transpose 8192 x 14336, bf16", Time([&] { Transpose(transpose, nullptr); }), 4.0 * kRows * kMlp);
}

void Optimizer() {
  constexpr int64_t kSize = 400'000'000;
  const Random<float> value(kSize), m(kSize), v(kSize), gradient(kSize);
  Check(cudaMemset(v.get(), 0x3d, kSize * sizeof(float)));  // roots of negative numbers would take another path
  const Random<BFloat16> rounded(kSize);
  const AdamWArgs args{.value = value.get(),
                       .first_moment = m.get(),
                       .second_moment = v.get(),
                       .gradient = gradient.get(),
                       .size = kSize,
                       .rounded = rounded.get(),
                       .beta1 = 0.9f,
                       .beta2 = 0.999f,
                       .rest1 = 0.1f,
                       .rest2 = 0.001f,
                       .step_size = 1e-4f,
                       .epsilon = 1e-8f};
  Report("AdamW 400 M", Time([&] { AdamW(args, nullptr); }), 30.0 * kSize);
  const Random<float> work(SumOfSquaresWorkspaceBytes() / int64_t{sizeof(float)}), sum(2);
  const SumOfSquaresArgs squares{.x = gradient.get(), .size = kSize, .sum = reinterpret_cast<double*>(sum.get())};
  Report("SumOfSquares 400 M", Time([&] { SumOfSquares(squares, reinterpret_cast<std::byte*>(work.get()), nullptr); }),
         4.0 * kSize);
}

}  // namespace
}  // namespace swiftkv::kernels::cuda

int main() {
  using namespace swiftkv::kernels::cuda;
  Attention(1, 8192);
  Attention(4, 2048);
  Kl();
  Rows();
  Optimizer();
  return 0;
}
