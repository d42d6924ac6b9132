// What the GPU can do at best, and what products in the shapes of Llama-3.1-8B reach of it: TFLOP/s of cuBLASLt in BF16
// and E4M3, GB/s of a copy. Medians over runs timed by the device itself; inputs are random, for products of zeros are
// faster.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <vector>

#include "base/bfloat16.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {
namespace {

AlignedBuffer Buffer(Device* device, int64_t bytes) { return AlignedBuffer::Allocate(bytes, "bench", *device).value(); }

// [rows, columns] of bf16, a random stretch repeated.
AlignedBuffer RandomRows(Device* device, int64_t rows, int64_t columns) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<BFloat16> stretch(1 << 20);
  for (BFloat16& value : stretch) value = ToBFloat16(normal(random));
  AlignedBuffer buffer = Buffer(device, rows * columns * 2);
  const auto bytes = static_cast<int64_t>(stretch.size() * 2);
  for (int64_t done = 0; done < buffer.bytes(); done += bytes) {
    device->Write(buffer.data() + done, stretch.data(), std::min(bytes, buffer.bytes() - done));
  }
  return buffer;
}

double MedianSeconds(Device* device, const std::function<void()>& run) {
  constexpr int kWarmUps = 3;
  constexpr int kRuns = 15;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<double> seconds;
  for (int i = 0; i < kWarmUps + kRuns; ++i) {
    cudaEventRecord(begin, device->stream());
    run();
    cudaEventRecord(end, device->stream());
    cudaEventSynchronize(end);
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, begin, end);
    if (i >= kWarmUps) seconds.push_back(milliseconds * 1e-3);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  return seconds[kRuns / 2];
}

void CopyBandwidth(Device* device) {
  const int64_t bytes = int64_t{4} << 30;
  AlignedBuffer from = RandomRows(device, bytes / 2, 1);
  AlignedBuffer to = Buffer(device, bytes);
  const double seconds = MedianSeconds(device, [&] { device->Copy(to.data(), from.data(), bytes); });
  fmt::print("copy of 4 GiB, read and written: {:.0f} GB/s\n", 2e-9 * static_cast<double>(bytes) / seconds);
}

void ProductSpeed(Device* device, Gemm* gemm, int64_t m, int64_t n, int64_t k, DType y_dtype, bool accumulate) {
  AlignedBuffer x = RandomRows(device, m, k);
  AlignedBuffer w = RandomRows(device, n, k);
  AlignedBuffer y = Buffer(device, m * n * BlockBytes(y_dtype));
  AlignedBuffer x8 = Buffer(device, m * k);
  AlignedBuffer w8 = Buffer(device, n * k);
  AlignedBuffer scales = Buffer(device, (m + n) * 4);
  const auto quantize = [&](const AlignedBuffer& from, int64_t rows, AlignedBuffer* codes, float* row_scales) {
    QuantizeRows({.x = from.data(),
                  .x_stride = k,
                  .x_dtype = DType::kBF16,
                  .rows = rows,
                  .size = k,
                  .out = reinterpret_cast<uint8_t*>(codes->data()),
                  .scales = row_scales},
                 device->stream());
  };
  quantize(x, m, &x8, scales.as<float>());
  quantize(w, n, &w8, scales.as<float>() + m);
  std::string line = fmt::format("{:6} x {:6} x {:6} to {:5}{}", m, k, n, Name(y_dtype), accumulate ? " +=" : "   ");
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    const bool is_fp8 = dtype == DType::kF8E4M3;
    const Product product{.x = is_fp8 ? x8.data() : x.data(),
                          .x_scales = scales.as<float>(),
                          .x_stride = k,
                          .m = m,
                          .w = is_fp8 ? w8.data() : w.data(),
                          .w_scales = scales.as<float>() + m,
                          .w_dtype = dtype,
                          .n = n,
                          .k = k,
                          .y = y.data(),
                          .y_stride = n,
                          .y_dtype = y_dtype,
                          .accumulate = accumulate};
    const double seconds = MedianSeconds(device, [&] { gemm->Run(product); });
    const auto bytes = static_cast<double>((m * k + n * k) * BlockBytes(dtype) + m * n * BlockBytes(y_dtype));
    line += fmt::format("   {}: {:8.1f} us {:5.0f} TFLOP/s {:5.0f} GB/s", Name(dtype), seconds * 1e6,
                        2e-12 * static_cast<double>(m * n * k) / seconds, bytes * 1e-9 / seconds);
    if (const Status status = device->TakeError(); !status) line += " (" + status.error().message + ")";
  }
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

int Main() {
  Result<std::unique_ptr<Device>> device = Device::Open();
  if (!device) {
    fmt::print("{}\n", device.error().message);
    return 0;
  }
  Gemm gemm(device->get());
  if (const Status status = gemm.Init(); !status) {
    fmt::print("{}\n", status.error().message);
    return 1;
  }
  fmt::print("{}\n", (*device)->properties().name);
  CopyBandwidth(device->get());
  ProductSpeed(device->get(), &gemm, 8192, 8192, 8192, DType::kBF16, false);
  for (const int64_t m : {1, 32, 256, 2048, 8192}) {
    ProductSpeed(device->get(), &gemm, m, 6144, 4096, DType::kF32, false);    // q, k and v
    ProductSpeed(device->get(), &gemm, m, 4096, 4096, DType::kF32, true);     // o
    ProductSpeed(device->get(), &gemm, m, 28672, 4096, DType::kBF16, false);  // gate and up
    ProductSpeed(device->get(), &gemm, m, 4096, 14336, DType::kF32, true);    // down
  }
  ProductSpeed(device->get(), &gemm, 4096, 32768, 4096, DType::kF32, false);  // K and V of 16 later layers
  return 0;
}

}  // namespace
}  // namespace swiftkv::kernels::cuda

int main() { return swiftkv::kernels::cuda::Main(); }
