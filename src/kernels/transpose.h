// The loop of every transpose on the host.
#ifndef SWIFTKV_KERNELS_TRANSPOSE_H_
#define SWIFTKV_KERNELS_TRANSPOSE_H_

#include <algorithm>
#include <cstdint>

namespace swiftkv::kernels {

// out [columns, rows] = convert of x [rows, columns], rows x_stride and out_stride apart, in square pieces that fit the
// first cache.
template <class In, class Out, class Convert>
void TransposePieces(const In* x, int64_t x_stride, int64_t rows, int64_t columns, Out* out, int64_t out_stride,
                     const Convert& convert) {
  constexpr int64_t kSide = 32;
  for (int64_t row = 0; row < rows; row += kSide) {
    const int64_t row_end = std::min(rows, row + kSide);
    for (int64_t column = 0; column < columns; column += kSide) {
      const int64_t column_end = std::min(columns, column + kSide);
      for (int64_t c = column; c < column_end; ++c) {
        for (int64_t r = row; r < row_end; ++r) out[c * out_stride + r] = convert(x[r * x_stride + c]);
      }
    }
  }
}

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_TRANSPOSE_H_
