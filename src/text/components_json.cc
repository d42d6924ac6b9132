#include "text/components_json.h"

#include <algorithm>
#include <utility>

#include "base/printable.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

using nlohmann::json;

tl::unexpected<Error> Unsupported(const JsonObject& object, const std::string& type) {
  return InvalidInput("{} '{}' is not supported", object.Place("type"), Printable(type));
}

// Calls `read` with the section itself or, for a "Sequence", with each of its members, at any depth.
template <class Read>
Status ForEachMember(const JsonObject& section, const char* members, const Read& read) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string type, section.String("type"));
  if (type != "Sequence") return read(section, type);
  SWIFTKV_ASSIGN_OR_RETURN(const json* list, section.Array(members));
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string place = fmt::format("{}[{}]", section.Place(members), i);
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject member, JsonObject::From((*list)[i], place));
    SWIFTKV_RETURN_IF_ERROR(ForEachMember(member, members, read));
  }
  return Ok();
}

// {"String": "..."} or {"Regex": "..."}
Result<Pattern> ReadPattern(const JsonObject& object) {
  SWIFTKV_ASSIGN_OR_RETURN(const JsonObject pattern, object.Object("pattern"));
  if (pattern.Find("String")) {
    SWIFTKV_ASSIGN_OR_RETURN(std::string literal, pattern.String("String"));
    return Pattern::FromString(std::move(literal));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const std::string regex, pattern.String("Regex"));
  Result<Pattern> compiled = Pattern::FromRegex(regex);
  if (!compiled) return InvalidInput("{}: {}", pattern.Place("Regex"), compiled.error().message);
  return compiled;
}

Result<SplitBehavior> ReadBehavior(const JsonObject& object) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string name, object.String("behavior"));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return InvalidInput("{} '{}' is not supported", object.Place("behavior"), Printable(name));
}

Result<char32_t> ReadChar(const JsonObject& object, const char* name) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, object.String(name));
  size_t end = 0;
  if (text.empty() || (NextCodePoint(text, end), end != text.size())) {
    return InvalidInput("{} must be one character", object.Place(name));
  }
  end = 0;
  return NextCodePoint(text, end);
}

// prepend_scheme, or the older files' add_prefix_space.
Result<PrependScheme> ReadPrependScheme(const JsonObject& object) {
  SWIFTKV_ASSIGN_OR_RETURN(const bool legacy, object.Bool("add_prefix_space", true));
  SWIFTKV_ASSIGN_OR_RETURN(const std::string name, object.String("prepend_scheme", legacy ? "always" : "never"));
  if (name == "always") return PrependScheme::kAlways;
  if (name == "never") return PrependScheme::kNever;
  if (name == "first") return PrependScheme::kFirst;
  return InvalidInput("{} '{}' is not supported", object.Place("prepend_scheme"), Printable(name));
}

Status ReadOneNormalizer(const JsonObject& object, const std::string& type, TokenizerParts& parts) {
  auto& normalizers = parts.normalizers;
  if (type == "NFC") {
    normalizers.push_back(MakeUnicodeNormalizer(NormalizationForm::kNfc));
  } else if (type == "NFD") {
    normalizers.push_back(MakeUnicodeNormalizer(NormalizationForm::kNfd));
  } else if (type == "NFKC") {
    normalizers.push_back(MakeUnicodeNormalizer(NormalizationForm::kNfkc));
  } else if (type == "NFKD") {
    normalizers.push_back(MakeUnicodeNormalizer(NormalizationForm::kNfkd));
  } else if (type == "Lowercase") {
    normalizers.push_back(MakeLowercase());
  } else if (type == "Strip") {
    SWIFTKV_ASSIGN_OR_RETURN(const bool left, object.Bool("strip_left", true));
    SWIFTKV_ASSIGN_OR_RETURN(const bool right, object.Bool("strip_right", true));
    normalizers.push_back(MakeStrip(left, right));
  } else if (type == "Prepend") {
    SWIFTKV_ASSIGN_OR_RETURN(std::string prefix, object.String("prepend"));
    normalizers.push_back(MakePrepend(std::move(prefix)));
  } else if (type == "Replace") {
    SWIFTKV_ASSIGN_OR_RETURN(Pattern pattern, ReadPattern(object));
    SWIFTKV_ASSIGN_OR_RETURN(std::string content, object.String("content"));
    normalizers.push_back(MakeReplace(std::move(pattern), std::move(content)));
  } else if (type == "ByteLevel") {
    normalizers.push_back(MakeByteLevelNormalizer());
  } else {
    return Unsupported(object, type);
  }
  return Ok();
}

Status ReadSplit(const JsonObject& object, TokenizerParts& parts) {
  SWIFTKV_ASSIGN_OR_RETURN(Pattern pattern, ReadPattern(object));
  SWIFTKV_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(object));
  SWIFTKV_ASSIGN_OR_RETURN(const bool invert, object.Bool("invert", false));
  parts.pre_tokenizers.push_back(MakeSplit(std::move(pattern), behavior, invert));
  return Ok();
}

Status ReadByteLevel(const JsonObject& object, TokenizerParts& parts) {
  SWIFTKV_ASSIGN_OR_RETURN(const bool add_prefix_space, object.Bool("add_prefix_space", true));
  SWIFTKV_ASSIGN_OR_RETURN(const bool use_regex, object.Bool("use_regex", true));
  if (add_prefix_space) parts.pre_tokenizers.push_back(MakeSpacePrefix());
  if (use_regex) {
    parts.pre_tokenizers.push_back(MakeSplit(Pattern::FromWords(WordPattern::kGpt2), SplitBehavior::kIsolated, false));
  }
  parts.pre_tokenizers.push_back(MakeByteLevelSpelling());
  return Ok();
}

Status ReadOnePreTokenizer(const JsonObject& object, const std::string& type, TokenizerParts& parts) {
  auto& pre_tokenizers = parts.pre_tokenizers;
  if (type == "ByteLevel") return ReadByteLevel(object, parts);
  if (type == "Split") return ReadSplit(object, parts);
  if (type == "Whitespace") {
    pre_tokenizers.push_back(MakeWhitespace());
  } else if (type == "WhitespaceSplit") {
    pre_tokenizers.push_back(MakeWhitespaceSplit());
  } else if (type == "Digits") {
    SWIFTKV_ASSIGN_OR_RETURN(const bool individual, object.Bool("individual_digits", false));
    pre_tokenizers.push_back(MakeDigits(individual));
  } else if (type == "Punctuation") {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    if (object.Find("behavior")) {
      SWIFTKV_ASSIGN_OR_RETURN(behavior, ReadBehavior(object));
    }
    pre_tokenizers.push_back(MakePunctuation(behavior));
  } else if (type == "CharDelimiterSplit") {
    SWIFTKV_ASSIGN_OR_RETURN(const char32_t delimiter, ReadChar(object, "delimiter"));
    pre_tokenizers.push_back(MakeCharDelimiterSplit(delimiter));
  } else if (type == "Metaspace") {
    SWIFTKV_ASSIGN_OR_RETURN(const char32_t replacement, ReadChar(object, "replacement"));
    SWIFTKV_ASSIGN_OR_RETURN(const PrependScheme scheme, ReadPrependScheme(object));
    SWIFTKV_ASSIGN_OR_RETURN(const bool split, object.Bool("split", true));
    std::string text;
    AppendUtf8(replacement, text);
    pre_tokenizers.push_back(MakeMetaspace(std::move(text), scheme, split));
  } else {
    return Unsupported(object, type);
  }
  return Ok();
}

// The ids of one special token of a template.
Status AppendTemplateToken(const JsonObject& template_object, const std::string& name, std::vector<int32_t>& ids) {
  SWIFTKV_ASSIGN_OR_RETURN(const JsonObject tokens, template_object.Object("special_tokens"));
  SWIFTKV_ASSIGN_OR_RETURN(const JsonObject token, tokens.Object(name.c_str()));
  SWIFTKV_ASSIGN_OR_RETURN(const json* list, token.Array("ids"));
  for (const json& id : *list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kMaxVocabulary)) {
      return InvalidInput("{} must hold token ids", token.Place("ids"));
    }
    ids.push_back(id.get<int32_t>());
  }
  return Ok();
}

// "single": [BOS..., the text, EOS...]. What an earlier processor added lies inside.
Status ReadTemplate(const JsonObject& object, TokenizerParts& parts) {
  SWIFTKV_ASSIGN_OR_RETURN(const json* single, object.Array("single"));
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  int sequences = 0;
  for (size_t i = 0; i < single->size(); ++i) {
    const std::string place = fmt::format("{}[{}]", object.Place("single"), i);
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject item, JsonObject::From((*single)[i], place));
    if (item.Find("Sequence")) {
      ++sequences;
      continue;
    }
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject token, item.Object("SpecialToken"));
    SWIFTKV_ASSIGN_OR_RETURN(const std::string name, token.String("id"));
    SWIFTKV_RETURN_IF_ERROR(AppendTemplateToken(object, name, sequences ? suffix : prefix));
  }
  if (sequences != 1) return InvalidInput("{} must hold the text exactly once", object.Place("single"));
  parts.prefix.insert(parts.prefix.begin(), prefix.begin(), prefix.end());
  parts.suffix.insert(parts.suffix.end(), suffix.begin(), suffix.end());
  return Ok();
}

// RoBERTa's and BERT's: "cls" before the text and "sep" behind it, each as [token, id].
Status ReadClsSep(const JsonObject& object, TokenizerParts& parts) {
  for (const char* name : {"cls", "sep"}) {
    SWIFTKV_ASSIGN_OR_RETURN(const json* pair, object.Array(name));
    if (pair->size() != 2 || !(*pair)[1].is_number_unsigned() ||
        (*pair)[1].get<uint64_t>() >= static_cast<uint64_t>(kMaxVocabulary)) {
      return InvalidInput("{} must be a token and its id", object.Place(name));
    }
    const auto id = (*pair)[1].get<int32_t>();
    if (name[0] == 'c') {
      parts.prefix.insert(parts.prefix.begin(), id);
    } else {
      parts.suffix.push_back(id);
    }
  }
  return Ok();
}

Status ReadOnePostProcessor(const JsonObject& object, const std::string& type, TokenizerParts& parts) {
  if (type == "ByteLevel") return Ok();  // changes offsets only
  if (type == "TemplateProcessing") return ReadTemplate(object, parts);
  if (type == "RobertaProcessing" || type == "BertProcessing") return ReadClsSep(object, parts);
  return Unsupported(object, type);
}

Status ReadOneDecoder(const JsonObject& object, const std::string& type, TokenizerParts& parts) {
  auto& decoders = parts.decoders;
  if (type == "ByteLevel") {
    decoders.push_back(MakeByteLevelDecoder());
  } else if (type == "ByteFallback") {
    decoders.push_back(MakeByteFallbackDecoder());
  } else if (type == "Fuse") {
    decoders.push_back(MakeFuseDecoder());
  } else if (type == "Strip") {
    SWIFTKV_ASSIGN_OR_RETURN(const char32_t content, ReadChar(object, "content"));
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t start, object.Int("start", 0, INT32_MAX));
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t stop, object.Int("stop", 0, INT32_MAX));
    decoders.push_back(MakeStripDecoder(content, static_cast<size_t>(start), static_cast<size_t>(stop)));
  } else if (type == "Replace") {
    SWIFTKV_ASSIGN_OR_RETURN(Pattern pattern, ReadPattern(object));
    SWIFTKV_ASSIGN_OR_RETURN(const std::string content, object.String("content"));
    decoders.push_back(MakeReplaceDecoder(std::make_shared<const Pattern>(std::move(pattern)), content));
  } else if (type == "Metaspace") {
    SWIFTKV_ASSIGN_OR_RETURN(const char32_t replacement, ReadChar(object, "replacement"));
    SWIFTKV_ASSIGN_OR_RETURN(const PrependScheme scheme, ReadPrependScheme(object));
    decoders.push_back(MakeMetaspaceDecoder(replacement, scheme != PrependScheme::kNever));
  } else {
    return Unsupported(object, type);
  }
  return Ok();
}

// Reads the members of the section `name` of the file with `read(object, type, parts)`.
template <class Read>
Status ReadSection(const JsonObject& file, const char* name, const char* members, TokenizerParts& parts,
                   const Read& read) {
  if (!file.Find(name)) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const JsonObject section, file.Object(name));
  return ForEachMember(section, members,
                       [&](const JsonObject& object, const std::string& type) { return read(object, type, parts); });
}

}  // namespace

Status ReadNormalizer(const JsonObject& file, TokenizerParts& parts) {
  return ReadSection(file, "normalizer", "normalizers", parts, ReadOneNormalizer);
}

Status ReadPreTokenizer(const JsonObject& file, TokenizerParts& parts) {
  return ReadSection(file, "pre_tokenizer", "pretokenizers", parts, ReadOnePreTokenizer);
}

Status ReadPostProcessor(const JsonObject& file, TokenizerParts& parts) {
  return ReadSection(file, "post_processor", "processors", parts, ReadOnePostProcessor);
}

Status ReadDecoder(const JsonObject& file, TokenizerParts& parts) {
  SWIFTKV_RETURN_IF_ERROR(ReadSection(file, "decoder", "decoders", parts, ReadOneDecoder));
  if (!file.Find("decoder")) parts.decoders.push_back(MakeSpaceJoinDecoder());
  return Ok();
}

}  // namespace swiftkv
