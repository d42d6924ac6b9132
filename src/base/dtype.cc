#include "base/dtype.h"

#include <array>

namespace swiftkv {
namespace {

struct Traits {
  std::string_view name;
  int64_t elements;
  int64_t bytes;
};

constexpr std::array<Traits, 18> kTraits = {{
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"BF16", 1, 2},
    {"F8_E4M3", 1, 1},
    {"I8", 1, 1},
    {"U8", 1, 1},
    {"I32", 1, 4},
    {"I64", 1, 8},
    {"Q8_0", 32, 34},
    {"Q4_0", 32, 18},
    {"Q4_1", 32, 20},
    {"Q5_0", 32, 22},
    {"Q5_1", 32, 24},
    {"Q4_K", 256, 144},
    {"Q5_K", 256, 176},
    {"Q6_K", 256, 210},
    {"Q8_K", 256, 292},
    {"I4", 8, 4},
}};

const Traits& Of(DType dtype) { return kTraits[static_cast<size_t>(dtype)]; }

}  // namespace

int64_t BlockElements(DType dtype) { return Of(dtype).elements; }
int64_t BlockBytes(DType dtype) { return Of(dtype).bytes; }
std::string_view Name(DType dtype) { return Of(dtype).name; }

std::optional<int64_t> BytesFor(DType dtype, int64_t elements) {
  if (elements < 0 || elements % BlockElements(dtype) != 0) return std::nullopt;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(elements / BlockElements(dtype), BlockBytes(dtype), &bytes)) return std::nullopt;
  return bytes;
}

}  // namespace swiftkv
