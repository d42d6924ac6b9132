// The vocabulary that a GGUF file carries (tokenizer.ggml.*), with llama.cpp's meaning.
#include "text/tokenizer_gguf.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/printable.h"
#include "text/components_json.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

using nlohmann::json;

// tokenizer.ggml.token_type; 5 (unused) and 6 (byte) need no treatment of their own
constexpr int32_t kNormal = 1;
constexpr int32_t kUnknown = 2;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;

constexpr const char* kSpaceMark = "▁";

// What a name in tokenizer.ggml.pre stands for: the normalizer and pre-tokenizers of the model's own tokenizer.json.
struct PreTokenizerRecipe {
  const char* name;
  bool digits = false;           // first, each digit by itself
  const char* first = nullptr;   // first, isolate this
  const char* regex = nullptr;   // the words
  const char* second = nullptr;  // then isolate these
  const char* third = nullptr;
  bool nfc = false;
  bool ignore_merges = false;
  bool add_bos = false;
};

constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr PreTokenizerRecipe kRecipes[] = {
    {.name = "gpt-2", .regex = kGpt2},
    {.name = "smollm", .digits = true, .regex = kGpt2},
    {.name = "starcoder", .digits = true, .regex = kGpt2},
    {.name = "refact", .digits = true, .regex = kGpt2},
    {.name = "command-r", .digits = true, .regex = kGpt2},
    {.name = "llama3", .regex = kLlama3, .ignore_merges = true, .add_bos = true},
    {.name = "llama-v3", .regex = kLlama3, .ignore_merges = true, .add_bos = true},
    {.name = "llama-bpe", .regex = kLlama3, .ignore_merges = true, .add_bos = true},
    {.name = "qwen2", .regex = kQwen2, .nfc = true},
    {.name = "deepseek-r1-qwen", .regex = kQwen2, .nfc = true},
    {.name = "tekken", .regex = kTekken, .ignore_merges = true, .add_bos = true},
    // llama.cpp's choice for files that name none.
    {.name = "default",
     .first = R"([\p{P}\$\+<=>\^~\|]+)",
     .regex = kGpt2,
     .second = R"(\p{N}+)",
     .third = "[0-9][0-9][0-9]"},
};

Result<const PreTokenizerRecipe*> FindRecipe(const std::string& name, const std::string& origin) {
  const std::string wanted = name.empty() ? "default" : name;
  for (const PreTokenizerRecipe& recipe : kRecipes) {
    if (wanted == recipe.name) return &recipe;
  }
  return InvalidInput("{}: tokenizer.ggml.pre '{}' is not supported", origin, Printable(name));
}

json Sequence(const char* members, json list) { return {{"type", "Sequence"}, {members, std::move(list)}}; }

json ByteLevelSection() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
}

json ReplaceSection(const char* text, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{"String", text}}}, {"content", content}};
}

json ByteLevelSections(const PreTokenizerRecipe& recipe) {
  json steps = json::array();
  if (recipe.digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  for (const char* regex : {recipe.first, recipe.regex, recipe.second, recipe.third}) {
    if (regex == nullptr) continue;
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back(ByteLevelSection());
  json sections = {{"pre_tokenizer", Sequence("pretokenizers", std::move(steps))}, {"decoder", ByteLevelSection()}};
  sections["normalizer"] = recipe.nfc ? json{{"type", "NFC"}} : json();
  return sections;
}

json SentencePieceSections(bool space_prefix) {
  json normalizers = json::array();
  if (space_prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
  normalizers.push_back(ReplaceSection(" ", kSpaceMark));
  json decoders = {ReplaceSection(kSpaceMark, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (space_prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"normalizer", Sequence("normalizers", std::move(normalizers))},
          {"pre_tokenizer", json()},
          {"decoder", Sequence("decoders", std::move(decoders))}};
}

int32_t TypeOf(const GgufVocabulary& vocabulary, size_t id) {
  return vocabulary.types.empty() ? kNormal : vocabulary.types[id];
}

Status CheckSizes(const GgufVocabulary& vocabulary, const std::string& origin) {
  const size_t size = vocabulary.tokens.size();
  if (size == 0 || size > static_cast<size_t>(kMaxVocabulary)) {
    return InvalidInput("{}: tokenizer.ggml.tokens has {} entries, the limit is {}", origin, size, kMaxVocabulary);
  }
  if (!vocabulary.types.empty() && vocabulary.types.size() != size) {
    return InvalidInput("{}: tokenizer.ggml.token_type has {} entries for {} tokens", origin, vocabulary.types.size(),
                        size);
  }
  if (!vocabulary.scores.empty() && vocabulary.scores.size() != size) {
    return InvalidInput("{}: tokenizer.ggml.scores has {} entries for {} tokens", origin, vocabulary.scores.size(),
                        size);
  }
  if (vocabulary.merges.size() > kMaxMerges) {
    return InvalidInput("{}: tokenizer.ggml.merges has {} entries, the limit is {}", origin, vocabulary.merges.size(),
                        kMaxMerges);
  }
  for (const auto& [name, id] : {std::pair("bos", vocabulary.bos_token_id), std::pair("eos", vocabulary.eos_token_id),
                                 std::pair("unknown", vocabulary.unknown_token_id)}) {
    if (id && (*id < 0 || static_cast<size_t>(*id) >= size)) {
      return InvalidInput("{}: tokenizer.ggml.{}_token_id {} is not below {}", origin, name, *id, size);
    }
  }
  return Ok();
}

void AddSpecialTokens(const GgufVocabulary& vocabulary, TokenizerParts& parts) {
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int32_t type = TypeOf(vocabulary, id);
    if (parts.tokens[id].empty() || (type != kControl && type != kUserDefined && type != kUnknown)) continue;
    AddedToken token;
    token.content = parts.tokens[id];
    token.id = static_cast<int32_t>(id);
    token.special = type != kUserDefined;
    parts.added_tokens.push_back(token);
  }
}

// Merges of a byte-level vocabulary: "left right". A space inside either can only be the left one's first byte.
Status AddMerges(const GgufVocabulary& vocabulary, const std::string& origin, TokenizerParts& parts) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < parts.tokens.size(); ++id) ids.insert_or_assign(parts.tokens[id], static_cast<int32_t>(id));
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string_view merge = vocabulary.merges[rank];
    const size_t space = merge.find(' ', 1);
    if (space == merge.npos) return InvalidInput("{}: tokenizer.ggml.merges[{}] is not two tokens", origin, rank);
    const auto left = ids.find(merge.substr(0, space));
    const auto right = ids.find(merge.substr(space + 1));
    if (left == ids.end() || right == ids.end()) {
      return InvalidInput("{}: tokenizer.ggml.merges[{}] '{}' names a token that does not exist", origin, rank,
                          Printable(merge));
    }
    parts.merges.push_back({left->second, right->second, static_cast<int32_t>(rank)});
  }
  return Ok();
}

Status ReadByteLevel(const GgufVocabulary& vocabulary, const std::string& origin, GgufTokenizer& tokenizer) {
  TokenizerParts& parts = tokenizer.parts;
  SWIFTKV_ASSIGN_OR_RETURN(const PreTokenizerRecipe* recipe, FindRecipe(vocabulary.pre, origin));
  SWIFTKV_RETURN_IF_ERROR(AddMerges(vocabulary, origin, parts));
  parts.options.ignore_merges = recipe->ignore_merges;
  tokenizer.sections = ByteLevelSections(*recipe);
  if (vocabulary.add_bos_token.value_or(recipe->add_bos) && vocabulary.bos_token_id) {
    parts.prefix.push_back(*vocabulary.bos_token_id);
  }
  return Ok();
}

// SentencePiece merges any two neighbours whose joint spelling is a token, the best-scored first, so every way to cut a
// token in two is a merge and its score is the rank.
Status AddMergesByScore(const GgufVocabulary& vocabulary, const std::string& origin, TokenizerParts& parts) {
  if (vocabulary.scores.empty()) return InvalidInput("{}: tokenizer.ggml.scores is missing", origin);
  std::unordered_map<std::string_view, int32_t> ids;
  std::vector<int32_t> by_score;
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    const int32_t type = TypeOf(vocabulary, id);
    if (parts.tokens[id].empty() || (type != kNormal && type != kUserDefined)) continue;
    ids.insert_or_assign(parts.tokens[id], static_cast<int32_t>(id));
    by_score.push_back(static_cast<int32_t>(id));
  }
  std::stable_sort(by_score.begin(), by_score.end(),
                   [&](int32_t a, int32_t b) { return vocabulary.scores[a] > vocabulary.scores[b]; });
  int32_t rank = 0;
  float previous = 0;
  for (const int32_t id : by_score) {
    if (vocabulary.scores[id] != previous) ++rank;
    previous = vocabulary.scores[id];
    const std::string_view token = parts.tokens[id];
    for (size_t cut = Utf8Length(token[0]); cut < token.size(); cut += Utf8Length(token[cut])) {
      const auto left = ids.find(token.substr(0, cut));
      const auto right = ids.find(token.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      if (parts.merges.size() == kMaxMerges) {
        return InvalidInput("{}: tokenizer.ggml.tokens make more than {} merges", origin, kMaxMerges);
      }
      parts.merges.push_back({left->second, right->second, rank});
    }
  }
  return Ok();
}

Status ReadSentencePiece(const GgufVocabulary& vocabulary, const std::string& origin, GgufTokenizer& tokenizer) {
  TokenizerParts& parts = tokenizer.parts;
  SWIFTKV_RETURN_IF_ERROR(AddMergesByScore(vocabulary, origin, parts));
  parts.options.byte_fallback = true;
  parts.options.fuse_unknown = true;
  parts.options.unknown_id = vocabulary.unknown_token_id;
  tokenizer.sections = SentencePieceSections(vocabulary.add_space_prefix.value_or(true));
  if (vocabulary.add_bos_token.value_or(true) && vocabulary.bos_token_id) {
    parts.prefix.push_back(*vocabulary.bos_token_id);
  }
  return Ok();
}

Status ReadSections(const GgufTokenizer& tokenizer, const std::string& origin, TokenizerParts& parts) {
  SWIFTKV_ASSIGN_OR_RETURN(const JsonObject sections, JsonObject::From(tokenizer.sections, origin));
  SWIFTKV_RETURN_IF_ERROR(ReadNormalizer(sections, parts));
  SWIFTKV_RETURN_IF_ERROR(ReadPreTokenizer(sections, parts));
  return ReadDecoder(sections, parts);
}

}  // namespace

Result<GgufTokenizer> ReadGgufTokenizer(const GgufVocabulary& vocabulary, const std::string& origin) {
  SWIFTKV_RETURN_IF_ERROR(CheckSizes(vocabulary, origin));
  GgufTokenizer tokenizer;
  TokenizerParts& parts = tokenizer.parts;
  parts.tokens.reserve(vocabulary.tokens.size());
  for (const std::string& token : vocabulary.tokens) {
    if (token.size() > kMaxTokenBytes) {
      return InvalidInput("{}: a token has {} bytes, the limit is {}", origin, token.size(), kMaxTokenBytes);
    }
    std::string repaired;
    parts.tokens.emplace_back(ValidUtf8(token, repaired));
  }
  if (vocabulary.model == "gpt2") {
    SWIFTKV_RETURN_IF_ERROR(ReadByteLevel(vocabulary, origin, tokenizer));
  } else if (vocabulary.model == "llama") {
    SWIFTKV_RETURN_IF_ERROR(ReadSentencePiece(vocabulary, origin, tokenizer));
  } else {
    return InvalidInput("{}: tokenizer.ggml.model '{}' is not supported, only gpt2 and llama are", origin,
                        Printable(vocabulary.model));
  }
  SWIFTKV_RETURN_IF_ERROR(ReadSections(tokenizer, origin, parts));
  AddSpecialTokens(vocabulary, parts);
  parts.bos_token_id = vocabulary.bos_token_id;
  parts.eos_token_id = vocabulary.eos_token_id;
  if (vocabulary.add_eos_token.value_or(false) && parts.eos_token_id) parts.suffix.push_back(*parts.eos_token_id);
  return tokenizer;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufVocabulary& vocabulary, const std::string& origin) {
  SWIFTKV_ASSIGN_OR_RETURN(GgufTokenizer tokenizer, ReadGgufTokenizer(vocabulary, origin));
  return MakeTokenizer(std::move(tokenizer.parts), origin);
}

}  // namespace swiftkv
