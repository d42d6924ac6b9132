#include "checkpoint/compressed_tensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "base/bfloat16.h"
#include "base/float8.h"
#include "base/printable.h"
#include "checkpoint/encode_values.h"

namespace swiftkv {
namespace {

constexpr std::string_view kPacked = "_packed";
constexpr int64_t kPackedCodes = 8;  // in an I32
constexpr int64_t kRowsPerPiece = 1024;

using TensorsByName = std::map<std::string, const StoredTensor*, std::less<>>;

bool IsPacked(const StoredTensor& tensor) { return tensor.name.ends_with(".weight_packed"); }
bool IsCompressed(const StoredTensor& tensor) {
  const bool is_int8 = tensor.dtype == DType::kI8 && tensor.name.ends_with(".weight");
  return tensor.dtype == DType::kF8E4M3 || is_int8 || IsPacked(tensor);
}

// Makes of `packed` the weight that its companion `<weight>_shape` describes.
Status Unpack(const TensorsByName& by_name, const std::string& origin, StoredTensor* packed) {
  const std::string weight = packed->name.substr(0, packed->name.size() - kPacked.size());
  const auto found = by_name.find(weight + "_shape");
  if (found == by_name.end()) return InvalidInput("{}: there is no {}_shape", origin, Printable(weight));
  const StoredTensor& shape = *found->second;
  std::vector<int64_t> sizes(2);
  if (shape.shape != std::vector<int64_t>{2} || (shape.dtype != DType::kI64 && shape.dtype != DType::kI32)) {
    return InvalidInput("{}: {} must hold two whole numbers", origin, Printable(shape.name));
  }
  if (shape.dtype == DType::kI64) {
    std::memcpy(sizes.data(), shape.data.data(), sizeof(int64_t) * 2);
  } else {
    int32_t small[2];
    std::memcpy(small, shape.data.data(), sizeof(small));
    std::copy_n(small, 2, sizes.begin());
  }
  const bool fits = packed->dtype == DType::kI32 && packed->shape.size() == 2 && packed->shape[0] == sizes[0] &&
                    sizes[1] % kPackedCodes == 0 && packed->shape[1] == sizes[1] / kPackedCodes;
  if (!fits) {
    return InvalidInput(
        "{}: {} of {} [{}] does not hold [{}] codes of 4 bits, eight in each I32 (other widths are not "
        "supported)",
        origin, Printable(packed->name), Name(packed->dtype), fmt::join(packed->shape, ", "), fmt::join(sizes, ", "));
  }
  packed->name = weight;
  packed->dtype = DType::kI4;
  packed->shape = sizes;
  return Ok();
}

Status AttachScale(const StoredTensor& scale, const std::string& origin, StoredTensor* tensor) {
  if (scale.dtype != DType::kF32 && scale.dtype != DType::kF16 && scale.dtype != DType::kBF16) {
    return InvalidInput("{}: {} has dtype {}, which is no type of scales", origin, Printable(scale.name),
                        Name(scale.dtype));
  }
  const int64_t count = scale.rows() * scale.columns();
  const bool is_vector = scale.shape.size() == 1;
  const int64_t groups = is_vector ? 1 : scale.columns();
  const bool by_row = !scale.shape.empty() && scale.shape.size() <= 2 && scale.shape[0] == tensor->rows() && groups > 0;
  const bool fits = groups == 1 || (tensor->dtype == DType::kI4 && tensor->columns() % groups == 0);
  if (count != 1 && !(by_row && fits)) {
    return InvalidInput("{}: {} must hold one value or one for each of the {} rows{}", origin, Printable(scale.name),
                        tensor->rows(), tensor->dtype == DType::kI4 ? ", or for each group of their columns" : "");
  }
  auto attached = std::make_shared<StoredTensor>(scale);
  attached->shape = count == 1 ? std::vector<int64_t>{1, 1} : std::vector<int64_t>{tensor->rows(), groups};
  tensor->scale = std::move(attached);
  return Ok();
}

// A row's or group's values as whole numbers of steps.
void Quantize(std::span<const float> values, float scale, float least, float greatest, int8_t* codes) {
  for (size_t i = 0; i < values.size(); ++i) {
    const float code = scale == 0 ? 0 : std::nearbyint(values[i] / scale);
    codes[i] = static_cast<int8_t>(std::clamp(code, least, greatest));
  }
}

float LargestMagnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

float Round(float value, DType dtype) { return dtype == DType::kBF16 ? ToFloat(ToBFloat16(value)) : value; }

// Codes -127 .. 127; returns the scale.
float QuantizeRow(std::span<const float> values, DType scale_dtype, int8_t* codes) {
  const float scale = Round(LargestMagnitude(values) / 127, scale_dtype);
  Quantize(values, scale, -127, 127, codes);
  return scale;
}

// Codes are E4M3's bits; returns the scale.
float RoundRow(std::span<const float> values, DType scale_dtype, int8_t* codes) {
  const float scale = Round(LargestMagnitude(values) / kMaxE4M3, scale_dtype);
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = static_cast<int8_t>(FloatToE4M3(scale == 0 ? 0 : values[i] / scale));
  }
  return scale;
}

// Codes -8 .. 7: of a few scales the one that leaves the least squared error.
float QuantizeGroup(std::span<const float> values, DType scale_dtype, int8_t* codes) {
  const float largest = LargestMagnitude(values);
  float best_scale = 0;
  double best_error = std::numeric_limits<double>::infinity();
  for (const float steps : {7.0f, 7.5f, 8.0f, 8.5f}) {
    const float scale = Round(largest / steps, scale_dtype);
    Quantize(values, scale, -8, 7, codes);
    double error = 0;
    for (size_t i = 0; i < values.size(); ++i) error += std::pow(static_cast<float>(codes[i]) * scale - values[i], 2);
    if (error < best_error) std::tie(best_error, best_scale) = std::pair(error, scale);
  }
  Quantize(values, best_scale, -8, 7, codes);
  return best_scale;
}

// Of a row, or for kInt4 of a group; returns the scale.
float QuantizePart(std::span<const float> values, CompressedFormat format, DType scale_dtype, int8_t* codes) {
  switch (format) {
    case CompressedFormat::kFp8:
      return RoundRow(values, scale_dtype, codes);
    case CompressedFormat::kInt8:
      return QuantizeRow(values, scale_dtype, codes);
    case CompressedFormat::kInt4:
      return QuantizeGroup(values, scale_dtype, codes);
  }
  return 0;
}

std::vector<uint8_t> PackNibbles(std::span<const int8_t> codes) {
  std::vector<uint8_t> packed(codes.size() / 2);
  for (size_t i = 0; i < packed.size(); ++i) {
    packed[i] = static_cast<uint8_t>((codes[2 * i] + 8) | (codes[2 * i + 1] + 8) << 4);
  }
  return packed;
}

}  // namespace

Status AttachScales(std::vector<StoredTensor>* tensors, const std::string& origin) {
  TensorsByName by_name;
  for (const StoredTensor& tensor : *tensors) by_name.emplace(tensor.name, &tensor);
  for (StoredTensor& tensor : *tensors) {
    if (!IsCompressed(tensor)) continue;
    const std::string weight(IsPacked(tensor) ? tensor.name.substr(0, tensor.name.size() - kPacked.size())
                                              : tensor.name);
    for (const auto& [suffix, what] : {std::pair{"_scale_inv", "block-wise scales"},
                                       {"_zero_point", "zero points"},
                                       {"_g_idx", "groups of columns that are not adjacent"}}) {
      if (by_name.contains(weight + suffix)) {
        return InvalidInput("{}: {} has {}, which are not supported", origin, Printable(weight), what);
      }
    }
    const auto scale = by_name.find(weight + "_scale");
    const bool is_float = tensor.dtype == DType::kF8E4M3;
    if (IsPacked(tensor)) SWIFTKV_RETURN_IF_ERROR(Unpack(by_name, origin, &tensor));
    if (scale != by_name.end()) {
      SWIFTKV_RETURN_IF_ERROR(AttachScale(*scale->second, origin, &tensor));
    } else if (!is_float) {
      return InvalidInput("{}: there is no {}_scale", origin, Printable(weight));
    }
  }
  return Ok();
}

std::vector<TensorToWrite> CompressedTensors(const std::string& name, const std::vector<int64_t>& shape,
                                             CompressedFormat format, DType scale_dtype) {
  if (format != CompressedFormat::kInt4) {
    const DType codes = format == CompressedFormat::kFp8 ? DType::kF8E4M3 : DType::kI8;
    return {{name, shape, codes}, {name + "_scale", {shape[0], 1}, scale_dtype}};
  }
  return {{name + "_packed", {shape[0], shape[1] / kPackedCodes}, DType::kI32},
          {name + "_scale", {shape[0], shape[1] / kInt4Group}, scale_dtype},
          {name + "_shape", {2}, DType::kI64}};
}

Status WriteCompressed(const StoredTensor& weight, CompressedFormat format, DType scale_dtype,
                       SafetensorsWriter* writer) {
  const bool is_packed = format == CompressedFormat::kInt4;
  const auto group = static_cast<size_t>(is_packed ? kInt4Group : weight.columns());
  std::vector<float> values;
  std::vector<float> scales;
  std::vector<int8_t> codes;
  for (int64_t row = 0; row < weight.rows(); row += kRowsPerPiece) {
    const int64_t rows = std::min(kRowsPerPiece, weight.rows() - row);
    values.resize(static_cast<size_t>(rows * weight.columns()));
    codes.resize(values.size());
    SWIFTKV_RETURN_IF_ERROR(DecodeRows(weight, row, rows, values.data()));
    if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
      return InvalidInput("{}: NaN or infinite values can't be quantized", Printable(weight.name));
    }
    for (size_t begin = 0; begin < values.size(); begin += group) {
      const std::span<const float> part = std::span(values).subspan(begin, group);
      scales.push_back(QuantizePart(part, format, scale_dtype, codes.data() + begin));
    }
    const std::vector<uint8_t> stored =
        is_packed ? PackNibbles(codes) : std::vector<uint8_t>(codes.begin(), codes.end());
    SWIFTKV_RETURN_IF_ERROR(writer->AppendBytes(std::as_bytes(std::span(stored))));
  }
  SWIFTKV_RETURN_IF_ERROR(writer->AppendBytes(EncodeValues(scales, scale_dtype)));
  return is_packed ? writer->AppendBytes(std::as_bytes(std::span(weight.shape))) : Ok();
}

}  // namespace swiftkv
