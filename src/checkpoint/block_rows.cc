#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/float16.h"
#include "checkpoint/printable.h"
#include "checkpoint/stored_rows.h"
#include "checkpoint/tensor_source.h"

namespace swiftkv {
namespace {

constexpr int64_t kBlock = 32;
constexpr uint16_t kHalfExponent = 0x7c00;  // all ones: NaN or infinite

uint16_t LoadBits(const uint8_t* from) {
  uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof(bits));
  return bits;
}

// One block of a file into codes [32], scale and minimum.
void DecodeBlock(DType dtype, const uint8_t* in, int8_t* codes, uint16_t* scale, uint16_t* minimum) {
  *scale = LoadBits(in);
  if (dtype == DType::kQ8_0) {
    std::memcpy(codes, in + 2, kBlock);
    return;
  }
  const uint8_t* nibbles = in + (dtype == DType::kQ4_1 ? 4 : 2);
  // Q4_0's d (q - 8) is d q + m with m = -8 d: exact, but for a scale that no real file has.
  *minimum = dtype == DType::kQ4_1 ? LoadBits(in + 2) : FloatToHalf(-8 * HalfToFloat(*scale));
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    codes[i] = static_cast<int8_t>(nibbles[i] & 15);
    codes[kBlock / 2 + i] = static_cast<int8_t>(nibbles[i] >> 4);
  }
}

bool IsFinite(const std::vector<uint16_t>& halves) {
  return std::none_of(halves.begin(), halves.end(),
                      [](uint16_t bits) { return (bits & kHalfExponent) == kHalfExponent; });
}

void Resize(int64_t rows, int64_t columns, DType type, BlockRows* out) {
  const auto blocks = static_cast<size_t>(rows * columns / kBlock);
  out->codes.resize(static_cast<size_t>(rows * columns));
  out->scales.resize(blocks);
  out->minima.resize(type == DType::kQ4_1 ? blocks : 0);
}

void QuantizeBlock8(const float* values, int8_t* codes, uint16_t* scale) {
  float largest = 0;
  for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(values[i]));
  *scale = FloatToHalf(largest / 127);
  const float step = HalfToFloat(*scale);
  for (int64_t i = 0; i < kBlock; ++i) {
    const float code = step == 0 ? 0 : std::nearbyint(values[i] / step);
    codes[i] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
  }
}

void QuantizeBlock4(const float* values, int8_t* codes, uint16_t* scale, uint16_t* minimum) {
  const auto [least, greatest] = std::minmax_element(values, values + kBlock);
  *minimum = FloatToHalf(*least);
  const float base = HalfToFloat(*minimum);
  *scale = FloatToHalf((*greatest - base) / 15);
  const float step = HalfToFloat(*scale);
  for (int64_t i = 0; i < kBlock; ++i) {
    const float code = step == 0 ? 0 : std::nearbyint((values[i] - base) / step);
    codes[i] = static_cast<int8_t>(std::clamp(code, 0.0f, 15.0f));
  }
}

}  // namespace

std::optional<DType> BlockRowsType(const StoredTensor& tensor) {
  if (tensor.dtype == DType::kQ4_0 || tensor.dtype == DType::kQ4_1) return DType::kQ4_1;
  if (tensor.dtype == DType::kQ8_0) return DType::kQ8_0;
  return std::nullopt;
}

Status DecodeBlockRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count, BlockRows* out) {
  SWIFTKV_RETURN_IF_ERROR(CheckRows(tensor, row_begin, row_count));
  const std::optional<DType> type = BlockRowsType(tensor);
  if (!type) {
    return InvalidInput("the tensor {} has dtype {}, which is not made of plain blocks", Printable(tensor.name),
                        Name(tensor.dtype));
  }
  const int64_t columns = tensor.columns();
  const int64_t blocks = columns / kBlock;
  Resize(row_count, columns, *type, out);
  const auto* data = reinterpret_cast<const uint8_t*>(tensor.data.data());
  for (int64_t row = 0; row < row_count; ++row) {
    const int64_t stored = tensor.permuted_heads > 0
                               ? StoredIndex(row_begin + row, tensor.rows(), tensor.permuted_heads)
                               : row_begin + row;
    const uint8_t* in = data + stored * blocks * BlockBytes(tensor.dtype);
    for (int64_t block = row * blocks; block < (row + 1) * blocks; ++block, in += BlockBytes(tensor.dtype)) {
      DecodeBlock(tensor.dtype, in, out->codes.data() + block * kBlock, out->scales.data() + block,
                  out->minima.empty() ? nullptr : out->minima.data() + block);
    }
  }
  if (tensor.file != nullptr) SWIFTKV_RETURN_IF_ERROR(tensor.file->Check());
  if (IsFinite(out->scales) && IsFinite(out->minima)) return Ok();
  return InvalidInput("{}: NaN or infinite", Printable(tensor.name));
}

void QuantizeRows(const float* rows, int64_t row_count, int64_t columns, DType type, BlockRows* out) {
  Resize(row_count, columns, type, out);
  for (int64_t block = 0; block < row_count * columns / kBlock; ++block) {
    const float* values = rows + block * kBlock;
    int8_t* codes = out->codes.data() + block * kBlock;
    if (type == DType::kQ8_0) {
      QuantizeBlock8(values, codes, out->scales.data() + block);
    } else {
      QuantizeBlock4(values, codes, out->scales.data() + block, out->minima.data() + block);
    }
  }
}

}  // namespace swiftkv
