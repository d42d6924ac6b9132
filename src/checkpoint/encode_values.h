// Values as tensors of plain types store them, which DecodeRows reads back.
//
//   SWIFTKV_RETURN_IF_ERROR(writer.AppendBytes(EncodeValues(values, DType::kF16)));
#ifndef SWIFTKV_CHECKPOINT_ENCODE_VALUES_H_
#define SWIFTKV_CHECKPOINT_ENCODE_VALUES_H_

#include <cstddef>
#include <span>
#include <vector>

#include "base/dtype.h"

namespace swiftkv {

// The types that hold numbers as they are, and that EncodeValues knows: kF32, kF16 and kBF16.
bool IsPlainFloat(DType dtype);

// Rounded to nearest even; `dtype` is a plain float.
std::vector<std::byte> EncodeValues(std::span<const float> values, DType dtype);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_ENCODE_VALUES_H_
