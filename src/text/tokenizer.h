// Text <-> token ids, equal to Hugging Face `tokenizers` on every input.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::FromFolder("/models/Llama-3.1-8B-Instruct"));
//   std::vector<int32_t> ids = tokenizer->Encode("Hello", {.add_special_tokens = true});
//   std::string text = tokenizer->Decode(ids, {.skip_special_tokens = true});
#ifndef SWIFTKV_TEXT_TOKENIZER_H_
#define SWIFTKV_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace swiftkv {

class DecodeChain;

// The tokenizer that a GGUF file carries in its metadata (tokenizer.ggml.*), as plain data.
struct GgufVocabulary {
  std::string model;                // "gpt2" (byte-level BPE), "llama" (SentencePiece BPE)
  std::string pre;                  // pre-tokenizer name: "smollm", "llama-bpe", "qwen2", ...
  std::vector<std::string> tokens;  // [vocab]
  std::vector<float> scores;        // [vocab] or empty
  std::vector<int32_t> types;       // [vocab]: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
  std::vector<std::string> merges;  // "left right"
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> eos_token_id;
  std::optional<int32_t> unknown_token_id;
  std::optional<int32_t> padding_token_id;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_space_prefix;
};

struct EncodeOptions {
  bool add_special_tokens = true;    // the post-processor's BOS/EOS
  bool parse_special_tokens = true;  // "<|im_end|>" in the text becomes its token, as in transformers
};

struct DecodeOptions {
  bool skip_special_tokens = true;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // tokenizer.json, with tokenizer_config.json beside it where present (added tokens, BOS rules).
  static Result<std::unique_ptr<Tokenizer>> FromFolder(const std::string& folder);
  static Result<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json, const std::string& origin);
  static Result<std::unique_ptr<Tokenizer>> FromGguf(const GgufVocabulary& vocabulary, const std::string& origin);

  // Never fails: invalid UTF-8 is replaced by U+FFFD before encoding, as Python's decode(errors="replace") does.
  virtual std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options) const = 0;
  virtual std::string Decode(std::span<const int32_t> ids, const DecodeOptions& options) const = 0;
  // For StreamDecoder.
  virtual std::unique_ptr<DecodeChain> NewDecodeChain() const = 0;

  // Ids run from 0 to vocab_size() - 1, added tokens included.
  virtual int32_t vocab_size() const = 0;
  virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;
  // The token's own spelling in the vocabulary ("Ġthe", "▁the"); empty for an id that does not exist. As in
  // `tokenizers`, an added token that is looked for in normalized text is spelled the normalized way.
  virtual std::string_view IdToToken(int32_t id) const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
  // What the token adds to a text in the middle of it, which may be a part of a character. Empty for an added token and
  // for an id that does not exist.
  virtual std::string TokenBytes(int32_t id) const = 0;
  virtual std::optional<int32_t> bos_token_id() const = 0;
  virtual std::optional<int32_t> eos_token_id() const = 0;
  // So many tokens Encode makes of a text (valid UTF-8) at least, found much faster. 0 where parts of the tokenizer may
  // leave text out or shorten it: then the number of bytes tells nothing.
  virtual size_t MinTokens(std::string_view text) const = 0;
};

// Text of a growing sequence of tokens, in pieces that never split a character: the concatenated pieces and Finish()
// equal Decode of all ids at once. Must not outlive the tokenizer.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, const DecodeOptions& options);
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();
  // Text that became certain with this token; often empty in the middle of a character. Ids that do not exist and,
  // with skip_special_tokens, special tokens have no text.
  std::string Push(int32_t id);
  // What is left (an unfinished character becomes U+FFFD). Nothing may be pushed afterwards.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  std::unique_ptr<DecodeChain> chain_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_TOKENIZER_H_
