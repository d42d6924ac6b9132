#include "distill/gradient_products.h"

#include <algorithm>
#include <numeric>

#include "base/bfloat16.h"
#include "base/parallel.h"

namespace swiftkv {
namespace {

using kernels::PackedMatrix;

constexpr int64_t kPackRows = 64;     // PackRows may run in parallel from multiples of 64
constexpr int64_t kUnpackRows = 512;  // rows of a packed matrix that are unpacked at a time

float Widen(float value) { return value; }
float Widen(BFloat16 value) { return ToFloat(value); }

// out [columns, rows] of a column range of in [rows, all columns], in square pieces that fit the first cache.
template <class In, class Out, class Convert>
void TransposeColumns(const In* in, int64_t in_stride, int64_t rows, int64_t columns, Out* out, int64_t out_stride,
                      const Convert& convert) {
  constexpr int64_t kPiece = 32;
  for (int64_t row = 0; row < rows; row += kPiece) {
    const int64_t row_end = std::min(rows, row + kPiece);
    for (int64_t column = 0; column < columns; column += kPiece) {
      const int64_t column_end = std::min(columns, column + kPiece);
      for (int64_t c = column; c < column_end; ++c) {
        for (int64_t r = row; r < row_end; ++r) out[c * out_stride + r] = convert(in[r * in_stride + c]);
      }
    }
  }
}

// Packs xᵀ in strips of 64 of its rows.
template <class T>
void PackTransposedRows(const kernels::Backend& backend, const T* x, int64_t m, int64_t k, PackedMatrix* out) {
  ParallelFor((k + kPackRows - 1) / kPackRows, [&](int64_t strip) {
    const int64_t begin = strip * kPackRows;
    const int64_t count = std::min(kPackRows, k - begin);
    std::vector<float> rows(static_cast<size_t>(count * m));
    TransposeColumns(x + begin, k, m, count, rows.data(), m, [](T value) { return Widen(value); });
    backend.PackRows(rows.data(), begin, count, out);
  });
}

template <class T>
void TransposeAll(const T* x, int64_t m, int64_t n, T* out) {
  ParallelFor((n + kPackRows - 1) / kPackRows, [&](int64_t strip) {
    const int64_t begin = strip * kPackRows;
    TransposeColumns(x + begin, n, m, std::min(kPackRows, n - begin), out + begin * m, m,
                     [](T value) { return value; });
  });
}

}  // namespace

void PackTransposed(const kernels::Backend& backend, const float* values, int64_t rows, int64_t columns,
                    PackedMatrix* out) {
  PackTransposedRows(backend, values, rows, columns, out);
}

Result<PackedMatrix> TransposePacked(const kernels::Backend& backend, const PackedMatrix& w) {
  SWIFTKV_ASSIGN_OR_RETURN(PackedMatrix out, backend.AllocatePacked(w.k, w.n, w.dtype));
  // Strips of the result are as wide as the whole of w is long, so w is unpacked once for each batch of strips.
  const int64_t strip_rows = std::clamp<int64_t>((int64_t{64} << 20) / (w.n * 4) / kPackRows, 1, 64) * kPackRows;
  std::vector<int32_t> ids(static_cast<size_t>(kUnpackRows));
  std::vector<float> unpacked(static_cast<size_t>(kUnpackRows * w.k));
  for (int64_t begin = 0; begin < w.k; begin += strip_rows) {
    const int64_t count = std::min(strip_rows, w.k - begin);
    SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer strip, AlignedBuffer::Allocate(count * w.n * 4, "transposed weights"));
    for (int64_t row = 0; row < w.n; row += kUnpackRows) {
      const int64_t rows = std::min(kUnpackRows, w.n - row);
      std::iota(ids.begin(), ids.end(), static_cast<int32_t>(row));
      backend.UnpackRows(w, ids.data(), rows, unpacked.data());
      TransposeColumns(unpacked.data() + begin, w.k, rows, count, strip.as<float>() + row, w.n,
                       [](float value) { return value; });
    }
    ParallelFor((count + kPackRows - 1) / kPackRows, [&](int64_t i) {
      backend.PackRows(strip.as<float>() + i * kPackRows * w.n, begin + i * kPackRows,
                       std::min(kPackRows, count - i * kPackRows), &out);
    });
  }
  out.data.UseHugePages();
  return out;
}

Status WeightGradient::SetInput(const void* x, int64_t m, int64_t k) {
  if (input_.n != k || input_.k != m) {
    SWIFTKV_ASSIGN_OR_RETURN(input_, backend_.AllocatePacked(k, m, dtype_));
  }
  if (dtype_ == DType::kBF16) {
    PackTransposedRows(backend_, static_cast<const BFloat16*>(x), m, k, &input_);
  } else {
    PackTransposedRows(backend_, static_cast<const float*>(x), m, k, &input_);
  }
  return Ok();
}

Status WeightGradient::Add(const void* dy, int64_t n, float* dw) {
  const int64_t m = input_.k;
  const int64_t bytes = n * m * (dtype_ == DType::kBF16 ? 2 : 4);
  if (dy_transposed_.bytes() < bytes) {
    SWIFTKV_ASSIGN_OR_RETURN(dy_transposed_, AlignedBuffer::Allocate(bytes, "transposed gradients"));
  }
  if (dtype_ == DType::kBF16) {
    TransposeAll(static_cast<const BFloat16*>(dy), m, n, dy_transposed_.as<BFloat16>());
  } else {
    TransposeAll(static_cast<const float*>(dy), m, n, dy_transposed_.as<float>());
  }
  backend_.Gemm({.x = dy_transposed_.data(),
                 .x_stride = m,
                 .m = n,
                 .w = &input_,
                 .y = dw,
                 .y_stride = input_.n,
                 .y_dtype = DType::kF32,
                 .accumulate = true});
  return Ok();
}

void AddColumnSums(const float* x, int64_t stride, int64_t rows, int64_t size, float* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < size; ++i) sums[i] += x[r * stride + i];
  }
}

}  // namespace swiftkv
