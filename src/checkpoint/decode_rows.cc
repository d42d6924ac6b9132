#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/float8.h"
#include "base/printable.h"
#include "checkpoint/block_parts.h"
#include "checkpoint/stored_rows.h"
#include "checkpoint/tensor_source.h"

namespace swiftkv {
namespace {

// Decodes `elements` consecutive elements (a whole number of blocks).
using Decoder = void (*)(const uint8_t* in, int64_t elements, float* out);

void DecodeF32(const uint8_t* in, int64_t elements, float* out) {
  if (elements > 0) std::memcpy(out, in, elements * sizeof(float));
}

void DecodeF16(const uint8_t* in, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; ++i) out[i] = LoadHalf(in + 2 * i);
}

void DecodeBF16(const uint8_t* in, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; ++i) {
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(Load<uint16_t>(in + 2 * i)) << 16);
  }
}

void DecodeF8E4M3(const uint8_t* in, int64_t elements, float* out) {
  static const auto kTable = [] {
    std::array<float, 256> table;
    for (int bits = 0; bits < 256; ++bits) table[bits] = E4M3ToFloat(static_cast<uint8_t>(bits));
    return table;
  }();
  for (int64_t i = 0; i < elements; ++i) out[i] = kTable[in[i]];
}

void DecodeI8(const uint8_t* in, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; ++i) out[i] = static_cast<float>(static_cast<int8_t>(in[i]));
}

void DecodeI4(const uint8_t* in, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; ++i) out[i] = static_cast<float>((in[i / 2] >> (i % 2 * 4) & 15) - 8);
}

// The block formats of ggml: each block holds its scale(s) as float16 and then its elements.

// { d, int8[32] }: d q
void DecodeQ8_0(const uint8_t* in, int64_t elements, float* out) {
  for (; elements > 0; elements -= 32, in += 34, out += 32) {
    const float d = LoadHalf(in);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(in[2 + i])) * d;
  }
}

// { d, nibbles[16] }: d (q - 8). Low nibbles are the first 16 elements, high nibbles the others.
void DecodeQ4_0(const uint8_t* in, int64_t elements, float* out) {
  for (; elements > 0; elements -= 32, in += 18, out += 32) {
    const float d = LoadHalf(in);
    for (int i = 0; i < 16; ++i) out[i] = d * static_cast<float>((in[2 + i] & 15) - 8);
    for (int i = 0; i < 16; ++i) out[16 + i] = d * static_cast<float>((in[2 + i] >> 4) - 8);
  }
}

// { d, m, nibbles[16] }: d q + m
void DecodeQ4_1(const uint8_t* in, int64_t elements, float* out) {
  for (; elements > 0; elements -= 32, in += 20, out += 32) {
    const float d = LoadHalf(in);
    const float m = LoadHalf(in + 2);
    for (int i = 0; i < 16; ++i) out[i] = d * static_cast<float>(in[4 + i] & 15) + m;
    for (int i = 0; i < 16; ++i) out[16 + i] = d * static_cast<float>(in[4 + i] >> 4) + m;
  }
}

// { d, uint32 high bits, nibbles[16] }: d (q - 16)
void DecodeQ5_0(const uint8_t* in, int64_t elements, float* out) {
  for (; elements > 0; elements -= 32, in += 22, out += 32) {
    const float d = LoadHalf(in);
    int q[32];
    Unpack5(in + 6, Load<uint32_t>(in + 2), q);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i] - 16);
  }
}

// { d, m, uint32 high bits, nibbles[16] }: d q + m
void DecodeQ5_1(const uint8_t* in, int64_t elements, float* out) {
  for (; elements > 0; elements -= 32, in += 24, out += 32) {
    const float d = LoadHalf(in);
    const float m = LoadHalf(in + 2);
    int q[32];
    Unpack5(in + 8, Load<uint32_t>(in + 4), q);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]) + m;
  }
}

// { d, dmin, scales[12], nibbles[128] }: eight groups of 32 elements, d scale q - dmin minimum. Two groups share 32
// bytes: the first has the low nibbles.
void DecodeQ4_K(const uint8_t* in, int64_t elements, float* out) {
  for (; elements > 0; elements -= 256, in += 144, out += 256) {
    const KScales k = UnpackKScales(in);
    for (int group = 0; group < 8; ++group) {
      const uint8_t* nibbles = in + 16 + group / 2 * 32;
      const int shift = group % 2 * 4;
      const float scale = k.scale[group];
      const float minimum = k.minimum[group];
      for (int i = 0; i < 32; ++i) out[32 * group + i] = scale * static_cast<float>(nibbles[i] >> shift & 15) - minimum;
    }
  }
}

// { d, dmin, scales[12], high bits[32], nibbles[128] }: as Q4_K; bit `group` of high[i] is element i's fifth.
void DecodeQ5_K(const uint8_t* in, int64_t elements, float* out) {
  for (; elements > 0; elements -= 256, in += 176, out += 256) {
    const KScales k = UnpackKScales(in);
    const uint8_t* high = in + 16;
    for (int group = 0; group < 8; ++group) {
      const uint8_t* nibbles = in + 48 + group / 2 * 32;
      const int shift = group % 2 * 4;
      const float scale = k.scale[group];
      const float minimum = k.minimum[group];
      for (int i = 0; i < 32; ++i) {
        const int q = (nibbles[i] >> shift & 15) | (high[i] >> group & 1) << 4;
        out[32 * group + i] = scale * static_cast<float>(q) - minimum;
      }
    }
  }
}

// { low nibbles[128], high bit pairs[64], int8 scales[16], d }: d scale (q - 32), one scale for 16 elements. Each half
// of 128 elements is four groups of 32: groups 0 and 1 are the low nibbles, 2 and 3 the high ones.
void DecodeQ6_K(const uint8_t* in, int64_t elements, float* out) {
  for (; elements > 0; elements -= 256, in += 210, out += 256) {
    const float d = LoadHalf(in + 208);
    for (int group = 0; group < 8; ++group) {
      const int half = group / 4;
      const uint8_t* low = in + 64 * half + 32 * (group % 2);
      const uint8_t* high = in + 128 + 32 * half;
      const int low_shift = group % 4 / 2 * 4;
      const int high_shift = group % 4 * 2;
      for (int part = 0; part < 2; ++part) {
        const float scale = d * static_cast<float>(static_cast<int8_t>(in[192 + 2 * group + part]));
        for (int i = 16 * part; i < 16 * part + 16; ++i) {
          const int q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
          out[32 * group + i] = scale * static_cast<float>(q - 32);
        }
      }
    }
  }
}

Decoder DecoderFor(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return DecodeF32;
    case DType::kF16:
      return DecodeF16;
    case DType::kBF16:
      return DecodeBF16;
    case DType::kF8E4M3:
      return DecodeF8E4M3;
    case DType::kQ8_0:
      return DecodeQ8_0;
    case DType::kQ4_0:
      return DecodeQ4_0;
    case DType::kQ4_1:
      return DecodeQ4_1;
    case DType::kQ5_0:
      return DecodeQ5_0;
    case DType::kQ5_1:
      return DecodeQ5_1;
    case DType::kQ4_K:
      return DecodeQ4_K;
    case DType::kQ5_K:
      return DecodeQ5_K;
    case DType::kQ6_K:
      return DecodeQ6_K;
    case DType::kI8:
      return DecodeI8;
    case DType::kI4:
      return DecodeI4;
    case DType::kU8:
    case DType::kI32:
    case DType::kI64:
    case DType::kQ8_K:
      return nullptr;
  }
  return nullptr;
}

Status ScaleRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count, float* values) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<float> scales, DecodeScales(tensor, row_begin, row_count));
  const int64_t group = tensor.columns() / tensor.scale->columns();
  for (const float scale : scales) {
    for (int64_t i = 0; i < group; ++i) *values++ *= scale;
  }
  return Ok();
}

}  // namespace

int64_t StoredTensor::rows() const { return shape.size() < 2 ? 1 : shape[0]; }

int64_t StoredTensor::columns() const {
  int64_t columns = 1;
  for (size_t i = shape.size() < 2 ? 0 : 1; i < shape.size(); ++i) columns *= shape[i];
  return columns;
}

Status CheckRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count) {
  const int64_t rows = tensor.rows();
  if (row_begin >= 0 && row_count >= 0 && row_begin <= rows && row_count <= rows - row_begin) return Ok();
  return InvalidInput("the tensor {} has {} rows, {} from row {} were asked for", Printable(tensor.name), rows,
                      row_count, row_begin);
}

Result<std::vector<float>> DecodeScales(const StoredTensor& tensor, int64_t row_begin, int64_t row_count) {
  std::vector<float> scales(static_cast<size_t>(row_count * tensor.scale->columns()));
  if (tensor.scale->rows() > 1) {
    SWIFTKV_RETURN_IF_ERROR(DecodeRows(*tensor.scale, row_begin, row_count, scales.data()));
  } else if (row_count > 0) {
    SWIFTKV_RETURN_IF_ERROR(DecodeRows(*tensor.scale, 0, 1, scales.data()));
    for (size_t i = static_cast<size_t>(tensor.scale->columns()); i < scales.size(); ++i) {
      scales[i] = scales[i - static_cast<size_t>(tensor.scale->columns())];
    }
  }
  return scales;
}

Status DecodeRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count, float* out) {
  const Decoder decode = DecoderFor(tensor.dtype);
  if (decode == nullptr || (tensor.dtype == DType::kI8 && tensor.scale == nullptr)) {
    return InvalidInput("the tensor {} has dtype {}, which is no type of weights", Printable(tensor.name),
                        Name(tensor.dtype));
  }
  SWIFTKV_RETURN_IF_ERROR(CheckRows(tensor, row_begin, row_count));
  const int64_t rows = tensor.rows();
  const int64_t columns = tensor.columns();
  const int64_t row_bytes = columns / BlockElements(tensor.dtype) * BlockBytes(tensor.dtype);
  const auto* data = reinterpret_cast<const uint8_t*>(tensor.data.data());
  const bool vector = tensor.shape.size() < 2;
  if (tensor.permuted_heads == 0 || vector) {
    decode(data + row_begin * row_bytes, row_count * columns, out);
  } else {
    for (int64_t row = 0; row < row_count; ++row) {
      decode(data + StoredIndex(row_begin + row, rows, tensor.permuted_heads) * row_bytes, columns,
             out + row * columns);
    }
  }
  if (tensor.permuted_heads > 0 && vector && row_count == 1) {
    const std::vector<float> stored(out, out + columns);
    for (int64_t i = 0; i < columns; ++i) out[i] = stored[StoredIndex(i, columns, tensor.permuted_heads)];
  }
  if (tensor.scale != nullptr) SWIFTKV_RETURN_IF_ERROR(ScaleRows(tensor, row_begin, row_count, out));
  return tensor.file == nullptr ? Ok() : tensor.file->Check();
}

}  // namespace swiftkv
