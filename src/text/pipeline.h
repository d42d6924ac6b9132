// A tokenizer taken apart: what the readers of tokenizer.json and of GGUF metadata fill in, and MakeTokenizer joins.
#ifndef SWIFTKV_TEXT_PIPELINE_H_
#define SWIFTKV_TEXT_PIPELINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace swiftkv {

// Limits on what files may ask for.
constexpr int64_t kMaxTokenizerFileBytes = 256ll << 20;
constexpr int32_t kMaxVocabulary = 4 << 20;  // ids, added tokens included
constexpr size_t kMaxMerges = 16 << 20;
constexpr size_t kMaxTokenBytes = 1 << 20;

struct TokenizerParts {
  // The model. tokens[id] is empty where only an added token has the id.
  std::vector<std::string> tokens;
  std::vector<BpeMerge> merges;
  BpeOptions options;

  std::vector<AddedToken> added_tokens;
  std::vector<std::unique_ptr<Normalizer>> normalizers;       // in this order
  std::vector<std::unique_ptr<PreTokenizer>> pre_tokenizers;  // in this order
  std::vector<int32_t> prefix;                                // added before the text's ids: BOS
  std::vector<int32_t> suffix;                                // and behind them: EOS
  std::vector<DecodeStageFactory> decoders;                   // in this order
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> eos_token_id;
};

// Error kInvalidInput, beginning with `origin`: ids beyond the limits, a merge whose product is no token.
Result<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts, const std::string& origin);

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_PIPELINE_H_
