#include "text/tokenizer_export.h"

#include <utility>

#include "text/tokenizer_gguf.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

using nlohmann::json;

// Of tokens with one spelling only the last is ever encoded.
json VocabularySection(const TokenizerParts& parts) {
  json vocabulary = json::object();
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (!parts.tokens[id].empty()) vocabulary[parts.tokens[id]] = id;
  }
  return vocabulary;
}

json ModelSection(const TokenizerParts& parts) {
  json merges = json::array();
  for (const BpeMerge& merge : parts.merges) merges.push_back({parts.tokens[merge.left], parts.tokens[merge.right]});
  const BpeOptions& options = parts.options;
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", options.unknown_id ? json(parts.tokens[*options.unknown_id]) : json()},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", options.fuse_unknown},
          {"byte_fallback", options.byte_fallback},
          {"ignore_merges", options.ignore_merges},
          {"vocab", VocabularySection(parts)},
          {"merges", std::move(merges)}};
}

json AddedTokensSection(const TokenizerParts& parts, const json& vocabulary) {
  json list = json::array();
  for (const AddedToken& token : parts.added_tokens) {
    if (vocabulary.at(token.content) != token.id) continue;
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  }
  return list;
}

// BOS and EOS around each of one or two texts; null where nothing is added.
json PostProcessorSection(const TokenizerParts& parts) {
  if (parts.prefix.empty() && parts.suffix.empty()) return nullptr;
  json special_tokens = json::object();
  const auto wrapped = [&](const char* sequence, int type_id) {
    json items = json::array();
    const auto add = [&](const std::vector<int32_t>& ids) {
      for (const int32_t id : ids) {
        const std::string& token = parts.tokens[id];
        items.push_back({{"SpecialToken", {{"id", token}, {"type_id", type_id}}}});
        special_tokens[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
      }
    };
    add(parts.prefix);
    items.push_back({{"Sequence", {{"id", sequence}, {"type_id", type_id}}}});
    add(parts.suffix);
    return items;
  };
  const json single = wrapped("A", 0);
  json pair = single;
  for (json& item : wrapped("B", 1)) pair.push_back(std::move(item));
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special_tokens}};
}

json ConfigJson(const GgufVocabulary& vocabulary, const TokenizerParts& parts, const TokenizerExport& options) {
  // This class takes tokenizer.json as it stands, in transformers 4 and 5; a family's own class would rebuild it.
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  if (options.model_max_length > 0) config["model_max_length"] = options.model_max_length;
  const auto name = [&](const char* field, const std::optional<int32_t>& id) {
    if (id && *id >= 0 && static_cast<size_t>(*id) < parts.tokens.size()) config[field] = parts.tokens[*id];
  };
  name("bos_token", parts.bos_token_id);
  name("eos_token", parts.eos_token_id);
  // transformers cuts every token named here out of texts. Some files name a plain token as padding, which must not be.
  for (const AddedToken& token : parts.added_tokens) {
    if (!token.special) continue;
    if (token.id == vocabulary.unknown_token_id) name("unk_token", token.id);
    if (token.id == vocabulary.padding_token_id) name("pad_token", token.id);
  }
  if (!options.chat_template.empty()) config["chat_template"] = options.chat_template;
  return config;
}

}  // namespace

Result<TokenizerFiles> ExportTokenizer(const GgufVocabulary& vocabulary, const TokenizerExport& options,
                                       const std::string& origin) {
  if (!IsValidUtf8(options.chat_template)) return InvalidInput("{}: the chat template is not UTF-8", origin);
  SWIFTKV_ASSIGN_OR_RETURN(const GgufTokenizer tokenizer, ReadGgufTokenizer(vocabulary, origin));
  json file = tokenizer.sections;
  file["version"] = "1.0";
  file["truncation"] = nullptr;
  file["padding"] = nullptr;
  file["post_processor"] = PostProcessorSection(tokenizer.parts);
  file["model"] = ModelSection(tokenizer.parts);
  file["added_tokens"] = AddedTokensSection(tokenizer.parts, file["model"]["vocab"]);
  return TokenizerFiles{file.dump() + "\n", ConfigJson(vocabulary, tokenizer.parts, options).dump(2) + "\n"};
}

}  // namespace swiftkv
