// A GGUF file's vocabulary, taken apart: for Tokenizer::FromGguf, and for writing it out as Hugging Face's files.
#ifndef SWIFTKV_TEXT_TOKENIZER_GGUF_H_
#define SWIFTKV_TEXT_TOKENIZER_GGUF_H_

#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"
#include "text/pipeline.h"

namespace swiftkv {

struct GgufTokenizer {
  TokenizerParts parts;
  // normalizer, pre_tokenizer and decoder in tokenizer.json's words: what those of `parts` were made from.
  nlohmann::json sections;
};

// Error kInvalidInput, beginning with `origin`: a model or pre-tokenizer that is not supported, sizes or ids that do
// not fit together.
Result<GgufTokenizer> ReadGgufTokenizer(const GgufVocabulary& vocabulary, const std::string& origin);

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_TOKENIZER_GGUF_H_
