// Any text as tokenizer.json, behind which, after a 0xff byte (which no JSON text has), may follow a text to encode.
// Text, ids and the streamed text of a tokenizer that loads must agree with each other.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void UseTokenizer(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool special : {false, true}) {
    const std::vector<int32_t> ids =
        tokenizer.Encode(text, {.add_special_tokens = special, .parse_special_tokens = special});
    StreamDecoder stream(tokenizer, {.skip_special_tokens = special});
    std::string streamed;
    for (const int32_t id : ids) {
      Require(id >= 0 && id < tokenizer.vocab_size());
      const std::string part = stream.Push(id);
      Require(IsValidUtf8(part));
      streamed += part;
    }
    streamed += stream.Finish();
    Require(streamed == tokenizer.Decode(ids, {.skip_special_tokens = special}));
  }
  std::vector<int32_t> every_id(std::min(tokenizer.vocab_size(), 1000) + 2);
  std::iota(every_id.begin(), every_id.end(), -1);
  (void)tokenizer.Decode(every_id, {});
}

}  // namespace
}  // namespace swiftkv

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(input.find('\xff'), input.size());
  const auto tokenizer = swiftkv::Tokenizer::FromJson(input.substr(0, split), "fuzz");
  if (!tokenizer) return 0;
  std::string_view text = input.substr(split);
  if (!text.empty()) text.remove_prefix(1);
  swiftkv::UseTokenizer(**tokenizer, text);
  swiftkv::UseTokenizer(**tokenizer, "aab  ab\n'll 1234 \xe2\x96\x81<s>\xf0\x9f\x91\xa9\xc3");
  return 0;
}
