// The roofline of a GPU, through the same operations that the model calls.
#include "bench/device_roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/aligned_buffer.h"

namespace swiftkv {
namespace {

using kernels::Backend;

constexpr int64_t kSize = 8192;  // of the product: kSize rows, input and output features
constexpr int kRuns = 10;        // between two waits for the device

// Waits until the device has done what it was told.
void Wait(const Backend& ops, const AlignedBuffer& buffer) {
  std::byte byte;
  ops.memory().Read(&byte, buffer.data(), 1);
}

Result<GemmPeak> MeasureGemm(const Backend& ops, DType dtype, double seconds) {
  SWIFTKV_ASSIGN_OR_RETURN(kernels::PackedMatrix w, ops.AllocatePacked(kSize, kSize, dtype));
  const DType y_dtype = dtype == DType::kF32 ? DType::kF32 : DType::kBF16;
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer values, AlignedBuffer::Allocate(kSize * kSize * 4, "roofline", ops.memory()));
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer weight, AlignedBuffer::Allocate(kSize * 4, "roofline", ops.memory()));
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer x, AlignedBuffer::Allocate(kSize * kSize * 4, "roofline", ops.memory()));
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer y, AlignedBuffer::Allocate(kSize * kSize * 4, "roofline", ops.memory()));
  // Random rows, for products of zeros are faster.
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> row(kSize);
  const std::vector<float> ones(kSize, 1.0F);
  ops.memory().Write(weight.data(), ones.data(), kSize * 4);
  for (int64_t r = 0; r < kSize; ++r) {
    if (r < 256) std::generate(row.begin(), row.end(), [&] { return uniform(random); });
    if (r >= 256) std::rotate(row.begin(), row.begin() + 1, row.end());
    ops.PackRows(row.data(), r, 1, &w);
    ops.memory().Write(values.data() + r * kSize * 4, row.data(), kSize * 4);
  }
  ops.RmsNorm({.x = values.as<float>(),
               .x_stride = kSize,
               .weight = weight.as<float>(),
               .eps = 1e-6F,
               .rows = kSize,
               .size = kSize,
               .out = x.data(),
               .out_stride = kSize,
               .out_dtype = ops.InputType(w, kSize)});
  const double best = BestRun(seconds, [&] {
    for (int i = 0; i < kRuns; ++i) {
      ops.Gemm({.x = x.data(),
                .x_stride = kSize,
                .m = kSize,
                .w = &w,
                .y = y.data(),
                .y_stride = kSize,
                .y_dtype = y_dtype,
                .x_quantized = dtype == DType::kF8E4M3});
    }
    Wait(ops, y);
  });
  SWIFTKV_RETURN_IF_ERROR(ops.TakeError());
  GemmPeak peak;
  peak.dtype = dtype;
  peak.flops = 2.0 * std::pow(double{kSize}, 3) * kRuns / best;
  peak.shape = fmt::format("{0} x {0} x {0}", kSize);
  return peak;
}

}  // namespace

Result<Roofline> MeasureDeviceRoofline(const Backend& ops, const std::vector<DType>& dtypes, double seconds) {
  Roofline roofline;
  for (const DType dtype : dtypes) {
    Result<GemmPeak> peak = MeasureGemm(ops, dtype, seconds);
    if (!peak && peak.error().code == ErrorCode::kInvalidInput) continue;  // not every GPU multiplies every type
    if (!peak) return tl::unexpected<Error>(std::move(peak).error());
    roofline.gemm.push_back(std::move(*peak));
  }
  roofline.read_bytes = kBeyondCaches;
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer from, AlignedBuffer::Allocate(roofline.read_bytes, "roofline", ops.memory()));
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer to, AlignedBuffer::Allocate(roofline.read_bytes, "roofline", ops.memory()));
  const double best = BestRun(seconds, [&] {
    for (int i = 0; i < kRuns; ++i) ops.memory().Copy(to.data(), from.data(), roofline.read_bytes);
    Wait(ops, to);
  });
  roofline.read_bandwidth = 2.0 * static_cast<double>(roofline.read_bytes) * kRuns / best;
  SWIFTKV_RETURN_IF_ERROR(ops.TakeError());
  return roofline;
}

}  // namespace swiftkv
