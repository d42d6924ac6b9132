// The GGUF container from bytes, before anything is known about its content.
#ifndef SWIFTKV_CHECKPOINT_GGUF_PARSER_H_
#define SWIFTKV_CHECKPOINT_GGUF_PARSER_H_

#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/gguf.h"

namespace swiftkv {

enum GgufType : uint32_t {
  kGgufUint8 = 0,
  kGgufInt8 = 1,
  kGgufUint16 = 2,
  kGgufInt16 = 3,
  kGgufUint32 = 4,
  kGgufInt32 = 5,
  kGgufFloat32 = 6,
  kGgufBool = 7,
  kGgufString = 8,
  kGgufArray = 9,
  kGgufUint64 = 10,
  kGgufInt64 = 11,
  kGgufFloat64 = 12,
};

struct GgufContent {
  std::map<std::string, GgufValue, std::less<>> values;
  std::vector<StoredTensor> tensors;  // under their stored names, shapes in row-major order, `file` null
};

// Checks every count, length and offset against the bytes that are there. Error kInvalidInput.
Result<GgufContent> ParseGguf(std::span<const std::byte> bytes, const std::string& origin);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_GGUF_PARSER_H_
