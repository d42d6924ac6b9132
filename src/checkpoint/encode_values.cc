#include "checkpoint/encode_values.h"

#include <cassert>
#include <cstring>

#include "base/bfloat16.h"
#include "base/float16.h"

namespace swiftkv {
namespace {

template <class Encode>
std::vector<std::byte> EncodeEach(std::span<const float> values, const Encode& encode) {
  using Stored = decltype(encode(0.0f));
  std::vector<std::byte> bytes(values.size() * sizeof(Stored));
  for (size_t i = 0; i < values.size(); ++i) {
    const Stored stored = encode(values[i]);
    std::memcpy(bytes.data() + i * sizeof(Stored), &stored, sizeof(Stored));
  }
  return bytes;
}

}  // namespace

bool IsPlainFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }

std::vector<std::byte> EncodeValues(std::span<const float> values, DType dtype) {
  assert(IsPlainFloat(dtype));
  if (dtype == DType::kF16) return EncodeEach(values, FloatToHalf);
  if (dtype == DType::kBF16) return EncodeEach(values, ToBFloat16);
  const std::span<const std::byte> bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}

}  // namespace swiftkv
