#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/float16.h"
#include "base/printable.h"
#include "checkpoint/block_parts.h"
#include "checkpoint/stored_rows.h"
#include "checkpoint/tensor_source.h"

namespace swiftkv {
namespace {

constexpr int64_t kBlock = 32;

// Where the parts of one block of a file go; minima is null where the type has none.
struct BlockOut {
  int8_t* codes;
  float* scales;
  float* minima;
};

void DecodeNibbles(const uint8_t* nibbles, int8_t* codes) {
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    codes[i] = static_cast<int8_t>(nibbles[i] & 15);
    codes[kBlock / 2 + i] = static_cast<int8_t>(nibbles[i] >> 4);
  }
}

void DecodeQ8_0(const uint8_t* in, const BlockOut& out) {
  *out.scales = LoadHalf(in);
  std::memcpy(out.codes, in + 2, kBlock);
}

void DecodeQ4_0(const uint8_t* in, const BlockOut& out) {
  *out.scales = LoadHalf(in);
  // d (q - 8) is d q + m with m = -8 d, which float16 holds, but for a scale that no real file has: infinite then.
  *out.minima = HalfToFloat(FloatToHalf(-8 * *out.scales));
  DecodeNibbles(in + 2, out.codes);
}

void DecodeQ4_1(const uint8_t* in, const BlockOut& out) {
  *out.scales = LoadHalf(in);
  *out.minima = LoadHalf(in + 2);
  DecodeNibbles(in + 4, out.codes);
}

void DecodeQ5_0(const uint8_t* in, const BlockOut& out) {
  *out.scales = LoadHalf(in);
  int q[kBlock];
  Unpack5(in + 6, Load<uint32_t>(in + 2), q);
  for (int64_t i = 0; i < kBlock; ++i) out.codes[i] = static_cast<int8_t>(q[i] - 16);
}

void DecodeQ5_1(const uint8_t* in, const BlockOut& out) {
  *out.scales = LoadHalf(in);
  *out.minima = LoadHalf(in + 2);
  int q[kBlock];
  Unpack5(in + 8, Load<uint32_t>(in + 4), q);
  for (int64_t i = 0; i < kBlock; ++i) out.codes[i] = static_cast<int8_t>(q[i]);
}

// Q4_K where `high` is null, else Q5_K.
void DecodeK(const uint8_t* in, const uint8_t* nibbles, const uint8_t* high, const BlockOut& out) {
  const KScales k = UnpackKScales(in);
  for (int group = 0; group < 8; ++group) {
    out.scales[group] = k.scale[group];
    out.minima[group] = -k.minimum[group];
    for (int i = 0; i < 32; ++i) {
      const int fifth = high == nullptr ? 0 : (high[i] >> group & 1) << 4;
      out.codes[32 * group + i] = static_cast<int8_t>((nibbles[group / 2 * 32 + i] >> (group % 2 * 4) & 15) | fifth);
    }
  }
}
void DecodeQ4_K(const uint8_t* in, const BlockOut& out) { DecodeK(in, in + 16, nullptr, out); }
void DecodeQ5_K(const uint8_t* in, const BlockOut& out) { DecodeK(in, in + 48, in + 16, out); }

void DecodeQ6_K(const uint8_t* in, const BlockOut& out) {
  const float d = LoadHalf(in + 208);
  for (int i = 0; i < 16; ++i) out.scales[i] = d * static_cast<float>(static_cast<int8_t>(in[192 + i]));
  for (int i = 0; i < 256; ++i) {
    const int group = i / 32;
    const uint8_t low = in[64 * (group / 4) + 32 * (group % 2) + i % 32];
    const uint8_t high = in[128 + 32 * (group / 4) + i % 32];
    const int q = (low >> (group % 4 / 2 * 4) & 15) | (high >> (group % 4 * 2) & 3) << 4;
    out.codes[i] = static_cast<int8_t>(q - 32);
  }
}

struct BlockType {
  DType stored;
  DType type;  // of its rows
  void (*decode)(const uint8_t* in, const BlockOut& out);
};
constexpr std::array<BlockType, 8> kBlockTypes = {{{DType::kQ8_0, DType::kQ8_0, DecodeQ8_0},
                                                   {DType::kQ4_0, DType::kQ4_1, DecodeQ4_0},
                                                   {DType::kQ4_1, DType::kQ4_1, DecodeQ4_1},
                                                   {DType::kQ5_0, DType::kQ8_0, DecodeQ5_0},
                                                   {DType::kQ5_1, DType::kQ5_K, DecodeQ5_1},
                                                   {DType::kQ4_K, DType::kQ4_K, DecodeQ4_K},
                                                   {DType::kQ5_K, DType::kQ5_K, DecodeQ5_K},
                                                   {DType::kQ6_K, DType::kQ6_K, DecodeQ6_K}}};

const BlockType* FindBlockType(DType stored) {
  const auto* const found = std::find_if(kBlockTypes.begin(), kBlockTypes.end(),
                                         [&](const BlockType& type) { return type.stored == stored; });
  return found == kBlockTypes.end() ? nullptr : found;
}

bool IsFinite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

void Resize(int64_t rows, int64_t columns, DType type, BlockRows* out) {
  const int64_t blocks = rows * columns / kBlock;
  const bool has_minima = type == DType::kQ4_1 || type == DType::kQ4_K || type == DType::kQ5_K;
  out->codes.resize(static_cast<size_t>(rows * columns));
  out->scales.resize(static_cast<size_t>(blocks * ScalesOfBlock(type)));
  out->minima.resize(static_cast<size_t>(has_minima ? blocks : 0));
}

float RoundToHalf(float value) { return HalfToFloat(FloatToHalf(value)); }

void QuantizeBlock8(const float* values, int8_t* codes, float* scale) {
  float largest = 0;
  for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(values[i]));
  *scale = RoundToHalf(largest / 127);
  for (int64_t i = 0; i < kBlock; ++i) {
    const float code = *scale == 0 ? 0 : std::nearbyint(values[i] / *scale);
    codes[i] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
  }
}

void QuantizeBlock4(const float* values, int8_t* codes, float* scale, float* minimum) {
  const auto [least, greatest] = std::minmax_element(values, values + kBlock);
  *minimum = RoundToHalf(*least);
  *scale = RoundToHalf((*greatest - *minimum) / 15);
  for (int64_t i = 0; i < kBlock; ++i) {
    const float code = *scale == 0 ? 0 : std::nearbyint((values[i] - *minimum) / *scale);
    codes[i] = static_cast<int8_t>(std::clamp(code, 0.0f, 15.0f));
  }
}

// Rows of I8 and I4 with scales.
Status DecodeScaledRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count, BlockRows* out) {
  const int64_t columns = tensor.columns();
  const auto* in = reinterpret_cast<const uint8_t*>(tensor.data.data());
  if (tensor.dtype == DType::kI8) {
    std::memcpy(out->codes.data(), in + row_begin * columns, out->codes.size());
  } else {
    in += row_begin * columns / 2;
    for (size_t i = 0; i < out->codes.size(); ++i) out->codes[i] = static_cast<int8_t>(in[i / 2] >> (i % 2 * 4) & 15);
  }
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<float> scales, DecodeScales(tensor, row_begin, row_count));
  const auto blocks_of_scale = static_cast<size_t>(columns / tensor.scale->columns() / kBlock);
  for (size_t block = 0; block < out->scales.size(); ++block) out->scales[block] = scales[block / blocks_of_scale];
  for (size_t block = 0; block < out->minima.size(); ++block) out->minima[block] = -8 * out->scales[block];
  return Ok();
}

// Rows of ggml's blocks.
void DecodeTypedRows(const StoredTensor& tensor, const BlockType& type, int64_t row_begin, int64_t row_count,
                     BlockRows* out) {
  const int64_t columns = tensor.columns();
  const int64_t elements = BlockElements(tensor.dtype);
  const int64_t bytes = BlockBytes(tensor.dtype);
  const auto* data = reinterpret_cast<const uint8_t*>(tensor.data.data());
  for (int64_t row = 0; row < row_count; ++row) {
    const int64_t stored = tensor.permuted_heads > 0
                               ? StoredIndex(row_begin + row, tensor.rows(), tensor.permuted_heads)
                               : row_begin + row;
    const uint8_t* in = data + stored * columns / elements * bytes;
    for (int64_t begin = row * columns; begin < (row + 1) * columns; begin += elements, in += bytes) {
      const int64_t block = begin / kBlock;
      type.decode(in, {.codes = out->codes.data() + begin,
                       .scales = out->scales.data() + block * ScalesOfBlock(type.type),
                       .minima = out->minima.empty() ? nullptr : out->minima.data() + block});
    }
  }
}

}  // namespace

std::optional<DType> BlockRowsType(const StoredTensor& tensor) {
  if (const BlockType* type = FindBlockType(tensor.dtype)) return type->type;
  if (tensor.scale == nullptr || tensor.columns() % (kBlock * tensor.scale->columns()) != 0) return std::nullopt;
  if (tensor.dtype == DType::kI8) return DType::kQ8_K;
  if (tensor.dtype == DType::kI4) return DType::kQ4_K;
  return std::nullopt;
}

Status DecodeBlockRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count, BlockRows* out) {
  SWIFTKV_RETURN_IF_ERROR(CheckRows(tensor, row_begin, row_count));
  const std::optional<DType> type = BlockRowsType(tensor);
  if (!type) {
    return InvalidInput("the tensor {} has dtype {}, which is not made of blocks", Printable(tensor.name),
                        Name(tensor.dtype));
  }
  Resize(row_count, tensor.columns(), *type, out);
  if (const BlockType* typed = FindBlockType(tensor.dtype)) {
    DecodeTypedRows(tensor, *typed, row_begin, row_count, out);
  } else {
    SWIFTKV_RETURN_IF_ERROR(DecodeScaledRows(tensor, row_begin, row_count, out));
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
