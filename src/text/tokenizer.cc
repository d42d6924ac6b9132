#include "text/tokenizer.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/printable.h"
#include "text/pipeline.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

// Lends one BpeScratch to each concurrent Encode call.
class ScratchPool {
 public:
  std::unique_ptr<BpeScratch> Take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<BpeScratch>();
    std::unique_ptr<BpeScratch> scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void Return(std::unique_ptr<BpeScratch> scratch) {
    const std::lock_guard lock(mutex_);
    if (free_.size() < kMaxKept) free_.push_back(std::move(scratch));
  }

 private:
  static constexpr size_t kMaxKept = 16;
  std::mutex mutex_;
  std::vector<std::unique_ptr<BpeScratch>> free_;
};

class PipelineTokenizer : public Tokenizer {
 public:
  PipelineTokenizer(TokenizerParts parts, Bpe bpe) : parts_(std::move(parts)), bpe_(std::move(bpe)) {
    added_of_id_.assign(bpe_.tokens().size(), -1);
    for (size_t i = 0; i < parts_.added_tokens.size(); ++i) {
      const AddedToken& token = parts_.added_tokens[i];
      added_of_id_[token.id] = static_cast<int32_t>(i);
      added_ids_.emplace(token.content, token.id);
      std::string& spelling = added_spellings_.emplace_back(token.content);
      if (token.normalized) Normalize(spelling);
      (token.normalized ? normalized_matcher_ : original_matcher_).Add(spelling, token);
    }
    if (AllTextCounts()) max_token_bytes_ = MaxTokenBytes();
  }

  std::vector<int32_t> Encode(std::string_view input, const EncodeOptions& options) const override {
    std::string repaired;
    const std::string_view text = ValidUtf8(input, repaired);
    std::vector<int32_t> ids;
    if (options.add_special_tokens) ids = parts_.prefix;
    std::unique_ptr<BpeScratch> scratch = scratch_.Take();
    for (const TextSegment& segment : original_matcher_.Split(text, options.parse_special_tokens)) {
      if (segment.id != kNotAToken) {
        ids.push_back(segment.id);
      } else {
        const std::string_view part = text.substr(segment.begin, segment.end - segment.begin);
        EncodeSegment(part, segment.begin == 0, options, *scratch, ids);
      }
    }
    scratch_.Return(std::move(scratch));
    if (options.add_special_tokens) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
    return ids;
  }

  std::string Decode(std::span<const int32_t> ids, const DecodeOptions& options) const override {
    StreamDecoder decoder(*this, options);
    std::string text;
    for (const int32_t id : ids) text += decoder.Push(id);
    return text + decoder.Finish();
  }

  std::unique_ptr<DecodeChain> NewDecodeChain() const override {
    return std::make_unique<DecodeChain>(parts_.decoders);
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(added_of_id_.size()); }

  std::optional<int32_t> TokenToId(std::string_view token) const override {
    const auto found = added_ids_.find(token);
    if (found != added_ids_.end()) return found->second;
    return bpe_.Find(token);
  }

  std::string_view IdToToken(int32_t id) const override {
    if (id < 0 || id >= vocab_size()) return {};
    if (const int32_t added = added_of_id_[id]; added >= 0) return added_spellings_[added];
    return bpe_.tokens()[id];
  }

  bool IsSpecial(int32_t id) const override {
    if (id < 0 || id >= vocab_size() || added_of_id_[id] < 0) return false;
    return parts_.added_tokens[added_of_id_[id]].special;
  }

  std::string TokenBytes(int32_t id) const override {
    if (id < 0 || id >= vocab_size() || added_of_id_[id] >= 0) return {};
    const std::string_view token = bpe_.tokens()[id];
    if (token.empty()) return {};
    if (parts_.options.byte_level) return ByteLevelBytes(token);
    if (const int byte = ByteFallbackByte(token); byte >= 0 && parts_.options.byte_fallback) {
      return {static_cast<char>(byte)};
    }
    // Decoders may treat the first token of a text in their own way.
    DecodeChain chain(parts_.decoders);
    chain.Push("a");
    chain.Push(token);
    chain.Finish();
    const std::string text = chain.Take();
    return text.starts_with('a') ? text.substr(1) : "";
  }

  std::optional<int32_t> bos_token_id() const override { return parts_.bos_token_id; }
  std::optional<int32_t> eos_token_id() const override { return parts_.eos_token_id; }
  size_t MinTokens(std::string_view text) const override {
    return max_token_bytes_ == 0 ? 0 : bpe_.KnownBytes(text) / max_token_bytes_;
  }

 private:
  // Whether whatever comes before the model leaves no text out and shortens none.
  bool AllTextCounts() const {
    const auto swallows_space = [](const AddedToken& token) { return token.lstrip || token.rstrip; };
    return std::ranges::none_of(parts_.added_tokens, swallows_space) &&
           std::ranges::all_of(parts_.normalizers, [](const auto& n) { return n->KeepsLength(); }) &&
           std::ranges::all_of(parts_.pre_tokenizers, [](const auto& p) { return p->KeepsText(); });
  }

  size_t MaxTokenBytes() const {
    size_t most = 0;
    for (const std::string& token : bpe_.tokens()) {
      most = std::max(most, parts_.options.byte_level ? ByteLevelBytes(token).size() : token.size());
    }
    for (const std::string& spelling : added_spellings_) most = std::max(most, spelling.size());
    return most;
  }

  // Text between the added tokens that are looked for before normalization.
  void EncodeSegment(std::string_view text, bool at_start, const EncodeOptions& options, BpeScratch& scratch,
                     std::vector<int32_t>& ids) const {
    std::string normalized;
    if (!parts_.normalizers.empty()) {
      normalized = text;
      Normalize(normalized);
      text = normalized;
    }
    for (const TextSegment& segment : normalized_matcher_.Split(text, options.parse_special_tokens)) {
      if (segment.id != kNotAToken) {
        ids.push_back(segment.id);
        continue;
      }
      SplitText split;
      split.text = text.substr(segment.begin, segment.end - segment.begin);
      split.pieces = {{0, split.text.size()}};
      split.at_start = at_start && segment.begin == 0;
      for (const auto& pre_tokenizer : parts_.pre_tokenizers) pre_tokenizer->Apply(split);
      for (size_t i = 0; i < split.pieces.size(); ++i) bpe_.Encode(split.Piece(i), scratch, ids);
    }
  }

  void Normalize(std::string& text) const {
    for (const auto& normalizer : parts_.normalizers) normalizer->Normalize(text);
  }

  TokenizerParts parts_;  // without the model's tokens and merges, which are in bpe_
  Bpe bpe_;
  AddedTokenMatcher original_matcher_;
  AddedTokenMatcher normalized_matcher_;
  std::vector<int32_t> added_of_id_;          // [vocab] index into parts_.added_tokens, or -1
  std::vector<std::string> added_spellings_;  // as `tokenizers` decodes them: normalized, if that is how they are found
  std::unordered_map<std::string_view, int32_t> added_ids_;  // views into parts_.added_tokens
  size_t max_token_bytes_ = 0;                               // 0: a token may stand for more text than its own
  mutable ScratchPool scratch_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts, const std::string& origin) {
  for (const AddedToken& token : parts.added_tokens) {
    if (token.id < 0 || token.id >= kMaxVocabulary) {
      return InvalidInput("{}: added token '{}' has id {}, the limit is {}", origin, Printable(token.content), token.id,
                          kMaxVocabulary);
    }
    if (token.content.size() > AddedTokenMatcher::kMaxContentBytes) {
      return InvalidInput("{}: the added token with id {} has {} bytes, the limit is {}", origin, token.id,
                          token.content.size(), AddedTokenMatcher::kMaxContentBytes);
    }
    if (static_cast<size_t>(token.id) >= parts.tokens.size()) parts.tokens.resize(token.id + 1);
  }
  for (const std::vector<int32_t>* ids : {&parts.prefix, &parts.suffix}) {
    for (const int32_t id : *ids) {
      if (id < 0 || static_cast<size_t>(id) >= parts.tokens.size()) {
        return InvalidInput("{}: the post-processor adds the token {}, which does not exist", origin, id);
      }
    }
  }
  if (!parts.pre_tokenizers.empty() && parts.pre_tokenizers.back()->SpellsBytes()) {
    parts.pre_tokenizers.pop_back();
    parts.options.byte_level = true;
  }
  SWIFTKV_ASSIGN_OR_RETURN(
      Bpe bpe, Bpe::Create(std::exchange(parts.tokens, {}), std::exchange(parts.merges, {}), parts.options, origin));
  return std::make_unique<PipelineTokenizer>(std::move(parts), std::move(bpe));
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, const DecodeOptions& options)
    : tokenizer_(&tokenizer), options_(options), chain_(tokenizer.NewDecodeChain()) {}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::Push(int32_t id) {
  const std::string_view token = tokenizer_->IdToToken(id);
  if (token.empty() || (options_.skip_special_tokens && tokenizer_->IsSpecial(id))) return {};
  chain_->Push(token);
  return chain_->Take();
}

std::string StreamDecoder::Finish() {
  chain_->Finish();
  return chain_->Take();
}

}  // namespace swiftkv
