#include "kernels/ref/ref_quantized.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/float16.h"
#include "kernels/quantize.h"
#include "kernels/ref/ref_math.h"

namespace swiftkv::kernels::ref {
namespace {

int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t Blocks(const PackedMatrix& w) { return w.n * w.k / kQuantizedBlock; }
int64_t CodeBytes(const PackedMatrix& w) { return Aligned(w.n * w.k); }
int64_t ScaleBytes(const PackedMatrix& w) { return Aligned(Blocks(w) * ScalesOfBlock(w.dtype) * 4); }
int64_t MinimumBytes(const PackedMatrix& w) { return HasMinima(w.dtype) ? Aligned(Blocks(w) * 4) : 0; }

struct Parts {
  explicit Parts(const PackedMatrix& w)
      : codes(w.data.as<int8_t>()),
        scales(reinterpret_cast<const float*>(w.data.data() + CodeBytes(w))),
        minima(reinterpret_cast<const float*>(w.data.data() + CodeBytes(w) + ScaleBytes(w))) {}

  const int8_t* codes;
  const float* scales;
  const float* minima;
};

// Of memory that `w` lets us write.
void PackScales(const float* from, int64_t count, DType dtype, const float* to) {
  const bool rounds = dtype == DType::kQ4_1 || dtype == DType::kQ8_0;
  std::transform(from, from + count, const_cast<float*>(to),
                 [&](float value) { return rounds ? HalfToFloat(FloatToHalf(value)) : value; });
}

// A row of inputs: the blocks' codes and scales.
struct QuantizedInputs {
  std::vector<int8_t> codes;
  std::vector<float> scales;

  QuantizedInputs(const GemmArgs& args, int64_t row) : codes(static_cast<size_t>(args.w->k)) {
    for (int64_t begin = 0; begin < args.w->k; begin += kQuantizedBlock) {
      float values[kQuantizedBlock];
      for (int64_t i = 0; i < kQuantizedBlock; ++i) {
        values[i] = Load(args.x, row * args.x_stride + begin + i, DType::kBF16);
      }
      scales.push_back(QuantizeVector(values, kQuantizedBlock, codes.data() + begin));
    }
  }
};

// The product of a row of inputs with output feature `j`.
float Product(const PackedMatrix& w, const Parts& parts, const QuantizedInputs& x, int64_t j) {
  float sum = 0;
  for (int64_t block = 0; block < w.k / kQuantizedBlock; ++block) {
    const int8_t* x_codes = x.codes.data() + block * kQuantizedBlock;
    const int8_t* w_codes = parts.codes + j * w.k + block * kQuantizedBlock;
    const float x_scale = x.scales[static_cast<size_t>(block)];
    const int64_t at = j * w.k / kQuantizedBlock + block;
    const int32_t products = std::inner_product(x_codes, x_codes + kQuantizedBlock, w_codes, int32_t{0});
    sum = std::fma(static_cast<float>(products) * parts.scales[at], x_scale, sum);
    if (w.dtype == DType::kQ4_1) {
      const int32_t total = std::accumulate(x_codes, x_codes + kQuantizedBlock, int32_t{0});
      sum = std::fma(parts.minima[at], static_cast<float>(total) * x_scale, sum);
    }
  }
  return sum;
}

}  // namespace

Result<PackedMatrix> AllocateQuantized(int64_t n, int64_t k, DType dtype) {
  PackedMatrix w{.n = n, .k = k, .dtype = dtype};
  const int64_t bytes = CodeBytes(w) + ScaleBytes(w) + MinimumBytes(w);
  SWIFTKV_ASSIGN_OR_RETURN(w.data, AlignedBuffer::Allocate(bytes, "packed weights"));
  return w;
}

void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  const Parts parts(*w);
  const int64_t blocks = w->k / kQuantizedBlock;
  const int64_t scales = blocks * ScalesOfBlock(w->dtype);
  std::copy_n(rows.codes, row_count * w->k, const_cast<int8_t*>(parts.codes) + row_begin * w->k);
  PackScales(rows.scales, row_count * scales, w->dtype, parts.scales + row_begin * scales);
  if (HasMinima(w->dtype)) PackScales(rows.minima, row_count * blocks, w->dtype, parts.minima + row_begin * blocks);
}

int8_t QuantizedCode(const PackedMatrix& w, int64_t row, int64_t k) { return Parts(w).codes[row * w.k + k]; }

float QuantizedScale(const PackedMatrix& w, int64_t row, int64_t k) {
  return Parts(w).scales[(row * w.k + k) * ScalesOfBlock(w.dtype) / kQuantizedBlock];
}

float QuantizedWeight(const PackedMatrix& w, int64_t row, int64_t k) {
  const float minimum = HasMinima(w.dtype) ? Parts(w).minima[(row * w.k + k) / kQuantizedBlock] : 0;
  const auto code = static_cast<float>(QuantizedCode(w, row, k));
  return ToFloat(ToBFloat16(std::fma(code, QuantizedScale(w, row, k), minimum)));
}

void GemmQuantized(const GemmArgs& args) {
  const PackedMatrix& w = *args.w;
  const Parts parts(w);
  for (int64_t r = 0; r < args.m; ++r) {
    const QuantizedInputs x(args, r);
    for (int64_t j = 0; j < w.n; ++j) {
      float value = Product(w, parts, x, j);
      if (args.bias != nullptr) value += args.bias[j];
      const int64_t y = r * args.y_stride + j;
      if (args.accumulate) value += Load(args.y, y, args.y_dtype);
      Store(args.y, y, args.y_dtype, value);
    }
  }
}

}  // namespace swiftkv::kernels::ref
