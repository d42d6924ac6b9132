// Tokenizer::FromJson and FromFolder: Hugging Face's tokenizer.json and tokenizer_config.json.
#include <sys/stat.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/file.h"
#include "base/printable.h"
#include "text/components_json.h"
#include "text/json_reader.h"
#include "text/pipeline.h"
#include "text/tokenizer.h"

namespace swiftkv {
namespace {

using nlohmann::json;

// Vocabulary entries, two ends of each merge, and some room for everything else.
constexpr size_t kMaxJsonValues = kMaxVocabulary * 2 + kMaxMerges;
constexpr size_t kMaxConfigValues = 4 << 20;

using TokenIds = std::unordered_map<std::string_view, int32_t>;

// model.vocab: {"token": id}. The ids of the added tokens may be missing.
Status ReadVocabulary(const JsonObject& model, TokenizerParts& parts) {
  SWIFTKV_ASSIGN_OR_RETURN(const json* vocabulary, model.Get("vocab"));
  if (!vocabulary->is_object()) return InvalidInput("{} must be an object", model.Place("vocab"));
  for (const auto& [token, value] : vocabulary->items()) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(kMaxVocabulary)) {
      return InvalidInput("{}: the id of '{}' must be an integer below {}", model.Place("vocab"), Printable(token),
                          kMaxVocabulary);
    }
    if (token.size() > kMaxTokenBytes) {
      return InvalidInput("{}: a token has {} bytes, the limit is {}", model.Place("vocab"), token.size(),
                          kMaxTokenBytes);
    }
    const auto id = value.get<size_t>();
    if (id >= parts.tokens.size()) parts.tokens.resize(id + 1);
    if (!parts.tokens[id].empty()) {
      return InvalidInput("{}: '{}' and '{}' have the same id {}", model.Place("vocab"), Printable(parts.tokens[id]),
                          Printable(token), id);
    }
    parts.tokens[id] = token;
  }
  return Ok();
}

// One merge, "left right" or ["left", "right"].
Status SplitMerge(const json& merge, const std::string& place, std::string_view& left, std::string_view& right) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    left = merge[0].get_ref<const std::string&>();
    right = merge[1].get_ref<const std::string&>();
    return Ok();
  }
  if (!merge.is_string()) return InvalidInput("{} must be two tokens", place);
  const std::string_view text = merge.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos) {
    return InvalidInput("{} must be two tokens with one space between them", place);
  }
  left = text.substr(0, space);
  right = text.substr(space + 1);
  return Ok();
}

Status ReadMerges(const JsonObject& model, const TokenIds& ids, TokenizerParts& parts) {
  SWIFTKV_ASSIGN_OR_RETURN(const json* merges, model.Array("merges"));
  if (merges->size() > kMaxMerges) {
    return InvalidInput("{} has {} entries, the limit is {}", model.Place("merges"), merges->size(), kMaxMerges);
  }
  parts.merges.reserve(merges->size());
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    const std::string place = fmt::format("{}[{}]", model.Place("merges"), rank);
    std::string_view left;
    std::string_view right;
    SWIFTKV_RETURN_IF_ERROR(SplitMerge((*merges)[rank], place, left, right));
    const auto left_id = ids.find(left);
    const auto right_id = ids.find(right);
    if (left_id == ids.end() || right_id == ids.end()) {
      return InvalidInput("{}: '{}' is not in the vocabulary", place, Printable(left_id == ids.end() ? left : right));
    }
    parts.merges.push_back({left_id->second, right_id->second, static_cast<int32_t>(rank)});
  }
  return Ok();
}

Status ReadModel(const JsonObject& file, TokenizerParts& parts) {
  SWIFTKV_ASSIGN_OR_RETURN(const JsonObject model, file.Object("model"));
  SWIFTKV_ASSIGN_OR_RETURN(const std::string type, model.String("type", model.Find("merges") ? "BPE" : "unnamed"));
  if (type != "BPE") return InvalidInput("{} '{}' is not supported, only BPE is", model.Place("type"), Printable(type));
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::string text, model.String(affix, ""));
    if (!text.empty()) return InvalidInput("{} '{}' is not supported", model.Place(affix), Printable(text));
  }
  if (const json* dropout = model.Find("dropout"); dropout && (!dropout->is_number() || *dropout != 0)) {
    return InvalidInput("{} is not supported: it makes encoding random", model.Place("dropout"));
  }
  SWIFTKV_ASSIGN_OR_RETURN(parts.options.fuse_unknown, model.Bool("fuse_unk", false));
  SWIFTKV_ASSIGN_OR_RETURN(parts.options.byte_fallback, model.Bool("byte_fallback", false));
  SWIFTKV_ASSIGN_OR_RETURN(parts.options.ignore_merges, model.Bool("ignore_merges", false));
  SWIFTKV_RETURN_IF_ERROR(ReadVocabulary(model, parts));

  TokenIds ids;
  ids.reserve(parts.tokens.size());
  for (size_t id = 0; id < parts.tokens.size(); ++id) ids.emplace(parts.tokens[id], static_cast<int32_t>(id));
  if (model.Find("unk_token")) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::string unknown, model.String("unk_token"));
    const auto found = ids.find(unknown);
    if (found != ids.end()) parts.options.unknown_id = found->second;
  }
  return ReadMerges(model, ids, parts);
}

Result<AddedToken> ReadAddedToken(const JsonObject& object, int32_t id) {
  AddedToken token;
  token.id = id;
  SWIFTKV_ASSIGN_OR_RETURN(token.content, object.String("content"));
  SWIFTKV_ASSIGN_OR_RETURN(token.special, object.Bool("special", false));
  SWIFTKV_ASSIGN_OR_RETURN(token.single_word, object.Bool("single_word", false));
  SWIFTKV_ASSIGN_OR_RETURN(token.lstrip, object.Bool("lstrip", false));
  SWIFTKV_ASSIGN_OR_RETURN(token.rstrip, object.Bool("rstrip", false));
  SWIFTKV_ASSIGN_OR_RETURN(token.normalized, object.Bool("normalized", !token.special));
  return token;
}

// The tokens of a file by spelling and by id, while more are added.
class Known {
 public:
  explicit Known(const TokenizerParts& parts) {
    for (size_t id = 0; id < parts.tokens.size(); ++id) {
      if (parts.tokens[id].empty()) continue;
      ids_.emplace(parts.tokens[id], static_cast<int32_t>(id));
      used_.emplace(static_cast<int32_t>(id), parts.tokens[id]);
    }
  }

  // Adds the token to `parts` unless one of its spelling was added before.
  // Error kInvalidInput: the spelling has another id, or the id another spelling.
  Status Add(const AddedToken& token, const std::string& place, TokenizerParts& parts) {
    if (token.content.empty() || added_.count(token.content)) return Ok();
    const auto [id, new_token] = ids_.emplace(token.content, token.id);
    if (id->second != token.id) {
      return InvalidInput("{}: '{}' has the id {} here and {} in the vocabulary", place, Printable(token.content),
                          token.id, id->second);
    }
    const auto [spelling, new_id] = used_.emplace(token.id, token.content);
    if (spelling->second != token.content) {
      return InvalidInput("{}: '{}' and '{}' have the same id {}", place, Printable(token.content),
                          Printable(spelling->second), token.id);
    }
    added_.emplace(token.content, token.id);
    parts.added_tokens.push_back(token);
    return Ok();
  }

  bool IsAdded(const std::string& content) const { return added_.count(content) > 0; }
  std::optional<int32_t> Find(const std::string& content) const {
    const auto found = ids_.find(content);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }

 private:
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<int32_t, std::string> used_;
  std::unordered_map<std::string, int32_t> added_;
};

Status ReadAddedTokens(const JsonObject& file, Known& known, TokenizerParts& parts) {
  if (!file.Find("added_tokens")) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const json* list, file.Array("added_tokens"));
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string place = fmt::format("{}[{}]", file.Place("added_tokens"), i);
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From((*list)[i], place));
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t id, object.Int("id", 0, kMaxVocabulary - 1));
    SWIFTKV_ASSIGN_OR_RETURN(const AddedToken token, ReadAddedToken(object, static_cast<int32_t>(id)));
    SWIFTKV_RETURN_IF_ERROR(known.Add(token, place, parts));
  }
  return Ok();
}

// tokenizer_config.json's added_tokens_decoder: {"128000": {"content": ...}}. Tokens that tokenizer.json lacks.
Status ReadAddedTokensDecoder(const JsonObject& config, Known& known, TokenizerParts& parts) {
  if (!config.Find("added_tokens_decoder")) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const json* tokens, config.Get("added_tokens_decoder"));
  if (!tokens->is_object()) return InvalidInput("{} must be an object", config.Place("added_tokens_decoder"));
  for (const auto& [key, value] : tokens->items()) {
    const std::string place = fmt::format("{}.{}", config.Place("added_tokens_decoder"), Printable(key));
    if (key.empty() || key.size() > 7 ||
        !std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      return InvalidInput("{} is not a token id", place);
    }
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(value, place));
    SWIFTKV_ASSIGN_OR_RETURN(const AddedToken token, ReadAddedToken(object, std::stoi(key)));
    if (token.id >= kMaxVocabulary) return InvalidInput("{} is not below the limit of {}", place, kMaxVocabulary);
    SWIFTKV_RETURN_IF_ERROR(known.Add(token, place, parts));
  }
  return Ok();
}

// "bos_token": "<s>" or {"content": "<s>", ...}. A named token is a special one even where only the vocabulary has it.
Result<std::optional<int32_t>> ReadNamedToken(const JsonObject& config, const char* name, Known& known,
                                              TokenizerParts& parts) {
  const json* value = config.Find(name);
  if (!value) return std::nullopt;
  AddedToken token;
  if (value->is_string()) {
    token.content = value->get<std::string>();
  } else {
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject object, config.Object(name));
    SWIFTKV_ASSIGN_OR_RETURN(token, ReadAddedToken(object, 0));
  }
  const std::optional<int32_t> id = known.Find(token.content);
  if (!id) return std::nullopt;
  token.id = *id;
  token.special = true;
  if (!known.IsAdded(token.content)) SWIFTKV_RETURN_IF_ERROR(known.Add(token, config.Place(name), parts));
  return id;
}

// What transformers takes from tokenizer_config.json: more added tokens, and add_bos_token or add_eos_token, which
// replace the file's post-processor where either is given.
Status ApplyConfig(const JsonObject& config, Known& known, TokenizerParts& parts) {
  SWIFTKV_RETURN_IF_ERROR(ReadAddedTokensDecoder(config, known, parts));
  SWIFTKV_ASSIGN_OR_RETURN(parts.bos_token_id, ReadNamedToken(config, "bos_token", known, parts));
  SWIFTKV_ASSIGN_OR_RETURN(parts.eos_token_id, ReadNamedToken(config, "eos_token", known, parts));
  for (const char* name : {"unk_token", "pad_token"}) {
    SWIFTKV_RETURN_IF_ERROR(ReadNamedToken(config, name, known, parts));
  }
  if (!config.Find("add_bos_token") && !config.Find("add_eos_token")) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const bool add_bos, config.Bool("add_bos_token", false));
  SWIFTKV_ASSIGN_OR_RETURN(const bool add_eos, config.Bool("add_eos_token", false));
  parts.prefix.clear();
  parts.suffix.clear();
  if (add_bos && parts.bos_token_id) parts.prefix.push_back(*parts.bos_token_id);
  if (add_eos && parts.eos_token_id) parts.suffix.push_back(*parts.eos_token_id);
  return Ok();
}

// `config_json` is null where the model has no tokenizer_config.json.
Result<std::unique_ptr<Tokenizer>> Build(std::string_view tokenizer_json, const std::string& origin,
                                         const std::string* config_json, const std::string& config_origin) {
  TokenizerParts parts;
  {
    if (tokenizer_json.size() > static_cast<size_t>(kMaxTokenizerFileBytes)) {
      return InvalidInput("{}: {} bytes, the limit is {}", origin, tokenizer_json.size(), kMaxTokenizerFileBytes);
    }
    SWIFTKV_ASSIGN_OR_RETURN(const json root, ParseJson(tokenizer_json, kMaxJsonValues, origin));
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject file, JsonObject::From(root, origin));
    SWIFTKV_RETURN_IF_ERROR(ReadModel(file, parts));
    SWIFTKV_RETURN_IF_ERROR(ReadNormalizer(file, parts));
    SWIFTKV_RETURN_IF_ERROR(ReadPreTokenizer(file, parts));
    SWIFTKV_RETURN_IF_ERROR(ReadPostProcessor(file, parts));
    SWIFTKV_RETURN_IF_ERROR(ReadDecoder(file, parts));
    Known known(parts);
    SWIFTKV_RETURN_IF_ERROR(ReadAddedTokens(file, known, parts));
    if (config_json) {
      SWIFTKV_ASSIGN_OR_RETURN(const json config_root, ParseJson(*config_json, kMaxConfigValues, config_origin));
      SWIFTKV_ASSIGN_OR_RETURN(const JsonObject config, JsonObject::From(config_root, config_origin));
      SWIFTKV_RETURN_IF_ERROR(ApplyConfig(config, known, parts));
    }
  }
  return MakeTokenizer(std::move(parts), origin);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json, const std::string& origin) {
  return Build(tokenizer_json, origin, nullptr, "");
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromFolder(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  const std::string config_path = folder + "/tokenizer_config.json";
  SWIFTKV_ASSIGN_OR_RETURN(const std::string tokenizer_json, ReadFile(path, kMaxTokenizerFileBytes));
  struct stat status;
  if (::stat(config_path.c_str(), &status) != 0) return Build(tokenizer_json, path, nullptr, "");
  SWIFTKV_ASSIGN_OR_RETURN(const std::string config_json, ReadFile(config_path, kMaxTokenizerFileBytes));
  return Build(tokenizer_json, path, &config_json, config_path);
}

}  // namespace swiftkv
