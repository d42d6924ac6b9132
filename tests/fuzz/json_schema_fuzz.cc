// Any schema: an error or a grammar, never a crash, a hang or much memory; and what a grammar lets through never ends
// in a dead end. The input is the schema, then a zero byte and bytes that choose among the allowed tokens.
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/structured_output.h"

namespace {

std::shared_ptr<const swiftkv::TokenTrie> Vocabulary() {
  static const auto trie = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
    for (const char* text : {"\",", "\": ", "{\"", "\"}", "]]", "},", "\\u00", "null", "12", ", "})
      tokens.emplace_back(text);
    return *swiftkv::TokenTrie::Create(tokens);
  }();
  return trie;
}

// The `choice`-th of the allowed tokens, going around; -1: none is allowed.
int32_t Choose(const std::vector<uint64_t>& mask, int choice) {
  std::vector<int32_t> allowed;
  for (size_t i = 0; i < mask.size(); ++i) {
    for (uint64_t word = mask[i]; word != 0; word &= word - 1) {
      allowed.push_back(static_cast<int32_t>(i * 64) + std::countr_zero(word));
    }
  }
  return allowed.empty() ? -1 : allowed[static_cast<size_t>(choice) % allowed.size()];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const auto grammar = swiftkv::CompileJsonSchema(input.substr(0, zero), Vocabulary());
  if (!grammar) return 0;
  const auto constraint = (*grammar)->New();
  const std::string_view choices = zero == std::string_view::npos ? "0123456789" : input.substr(zero + 1);
  for (const char choice : choices.substr(0, 200)) {
    std::vector<uint64_t> mask(static_cast<size_t>((Vocabulary()->vocab_size() + 63) / 64));
    if (!constraint->FillMask(mask)) return 0;
    const int32_t token = Choose(mask, static_cast<uint8_t>(choice));
    if (token < 0 && !constraint->MayEnd()) __builtin_trap();
    if (token < 0) return 0;
    constraint->Accept(token);
  }
  return 0;
}
