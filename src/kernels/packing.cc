// Packing from memory that kernels reach, as CPUs do it: their memory is the host's, where PackRows reads.
#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "base/bfloat16.h"
#include "base/parallel.h"
#include "kernels/ops.h"
#include "kernels/transpose.h"

namespace swiftkv::kernels {
namespace {

constexpr int64_t kPackRows = 64;     // PackRows may run in parallel from multiples of 64
constexpr int64_t kUnpackRows = 512;  // rows of a packed matrix that are unpacked at a time

float Widen(float value) { return value; }
float Widen(BFloat16 value) { return ToFloat(value); }

// Packs xᵀ in strips of 64 of its rows.
template <class T>
void PackTransposedRows(const Backend& backend, const T* x, int64_t rows, int64_t columns, PackedMatrix* w) {
  ParallelFor((columns + kPackRows - 1) / kPackRows, [&](int64_t strip) {
    const int64_t begin = strip * kPackRows;
    const int64_t count = std::min(kPackRows, columns - begin);
    std::vector<float> transposed(static_cast<size_t>(count * rows));
    TransposePieces(x + begin, columns, rows, count, transposed.data(), rows, [](T value) { return Widen(value); });
    backend.PackRows(transposed.data(), begin, count, w);
  });
}

}  // namespace

void Backend::PackFromMemory(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const {
  ParallelFor((row_count + kPackRows - 1) / kPackRows, [&](int64_t strip) {
    const int64_t begin = strip * kPackRows;
    PackRows(rows + begin * w->k, row_begin + begin, std::min(kPackRows, row_count - begin), w);
  });
}

void Backend::PackTransposed(const void* x, DType dtype, int64_t rows, int64_t columns, PackedMatrix* w) const {
  if (dtype == DType::kBF16) {
    PackTransposedRows(*this, static_cast<const BFloat16*>(x), rows, columns, w);
  } else {
    PackTransposedRows(*this, static_cast<const float*>(x), rows, columns, w);
  }
}

Status Backend::TransposePacked(const PackedMatrix& w, PackedMatrix* out) const {
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
      UnpackRows(w, ids.data(), rows, unpacked.data());
      TransposePieces(unpacked.data() + begin, w.k, rows, count, strip.as<float>() + row, w.n,
                      [](float value) { return value; });
    }
    PackFromMemory(strip.as<float>(), begin, count, out);
  }
  return Ok();
}

}  // namespace swiftkv::kernels
