// A GGUF file's tokenizer as the files that a Hugging Face folder has, for `tokenizers` and transformers.
//
//   SWIFTKV_ASSIGN_OR_RETURN(TokenizerFiles files, ExportTokenizer(vocabulary, {.chat_template = jinja}, "x.gguf"));
//   WriteFile(folder + "/tokenizer.json", files.tokenizer_json);
//
// The folder encodes, decodes and renders as Tokenizer::FromGguf does. One thing can't be said in tokenizer.json:
// SentencePiece tokens of equal score merge from left to right; there they merge in the order of their ids.
#ifndef SWIFTKV_TEXT_TOKENIZER_EXPORT_H_
#define SWIFTKV_TEXT_TOKENIZER_EXPORT_H_

#include <cstdint>
#include <string>

#include "base/status.h"
#include "text/tokenizer.h"

namespace swiftkv {

struct TokenizerExport {
  std::string chat_template = {};  // empty: none
  int64_t model_max_length = 0;    // tokens; 0: not said
};

struct TokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
};

// Errors: those of Tokenizer::FromGguf; kInvalidInput if the chat template is not UTF-8.
Result<TokenizerFiles> ExportTokenizer(const GgufVocabulary& vocabulary, const TokenizerExport& options,
                                       const std::string& origin);

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_TOKENIZER_EXPORT_H_
