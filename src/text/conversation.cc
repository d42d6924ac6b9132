#include "text/conversation.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// Bytes of a rendered conversation.
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
};

bool IsAssistant(const Json& message) { return message["role"].get_ref<const std::string&>() == "assistant"; }

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

std::string_view Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

Status CheckMessages(const Json& messages) {
  if (!messages.is_array() || messages.empty()) return InvalidInput("messages must be a list of messages");
  if (messages.size() > kMaxConversationMessages) {
    return InvalidInput("{} messages, the limit is {}", messages.size(), kMaxConversationMessages);
  }
  for (const Json& message : messages) {
    const auto role = message.find("role");
    if (!message.is_object() || role == message.end() || !role->is_string()) {
      return InvalidInput("a message must be an object with a role");
    }
  }
  return Ok();
}

class AssistantFinder {
 public:
  AssistantFinder(const ChatTemplate& chat_template, const Tokenizer& tokenizer, const Json& messages,
                  const Json& variables, const RenderOptions& options)
      : template_(chat_template),
        tokenizer_(tokenizer),
        messages_(messages),
        variables_(variables),
        options_(options) {}

  Result<ConversationTokens> Run() {
    SWIFTKV_ASSIGN_OR_RETURN(whole_, Render(messages_, false));
    std::optional<std::vector<TextSpan>> spans = SpansOfParts();
    if (!spans) spans = SpansOfContents();
    if (!spans) {
      return InvalidInput("what the assistant says can't be told from the rest of the rendered conversation");
    }
    return Tokens(*spans);
  }

 private:
  Result<std::string> Render(const Json& messages, bool generation_prompt) const {
    Json all = variables_.is_object() ? variables_ : Json::object();
    all["add_generation_prompt"] = generation_prompt;
    return RenderConversation(template_, tokenizer_, messages, all, options_);
  }

  // From where a generation prompt ends to where the conversation with the message ends; nullopt if one of these is no
  // beginning of the whole.
  std::optional<std::vector<TextSpan>> SpansOfParts() const {
    std::vector<TextSpan> spans;
    Json part = Json::array();
    for (const Json& message : messages_) {
      if (!IsAssistant(message)) {
        part.push_back(message);
        continue;
      }
      const Result<std::string> before = Render(part, true);
      part.push_back(message);
      const Result<std::string> through = Render(part, false);
      if (!before || !through || !through->starts_with(*before) || !whole_.starts_with(*through)) return std::nullopt;
      spans.push_back({before->size(), through->size()});
    }
    return spans;
  }

  // Renders the conversation with a mark in place of each content, and takes what stands between the marks as the
  // template's own words; nullopt if these words and the contents don't add up to the whole.
  std::optional<std::vector<TextSpan>> SpansOfContents() const {
    constexpr std::string_view kMark = "Xq7Wz";
    if (whole_.find(kMark) != std::string::npos) return std::nullopt;
    Json marked = messages_;
    std::vector<const Json*> contents;
    for (size_t i = 0; i < marked.size(); ++i) {
      const auto content = marked[i].find("content");
      if (content != marked[i].end() && content->is_string()) {
        contents.push_back(&messages_[i]);
        *content = fmt::format("{}{}.", kMark, contents.size());
      } else if (IsAssistant(marked[i])) {
        return std::nullopt;
      }
    }
    const Result<std::string> rendered = Render(marked, false);
    if (!rendered) return std::nullopt;
    std::string_view rest = *rendered;
    std::vector<std::string_view> around;  // one more than contents
    for (size_t i = 1; i <= contents.size(); ++i) {
      const std::string mark = fmt::format("{}{}.", kMark, i);
      const size_t place = rest.find(mark);
      if (place == std::string_view::npos) return std::nullopt;
      around.push_back(rest.substr(0, place));
      rest.remove_prefix(place + mark.size());
    }
    around.push_back(rest);
    return Align(contents, around);
  }

  std::optional<std::vector<TextSpan>> Align(const std::vector<const Json*>& contents,
                                             const std::vector<std::string_view>& around) const {
    std::vector<TextSpan> spans;
    std::string_view rest = whole_;
    if (!rest.starts_with(around[0])) return std::nullopt;
    rest.remove_prefix(around[0].size());
    for (size_t i = 0; i < contents.size(); ++i) {
      const auto& content = (*contents[i])["content"].get_ref<const std::string&>();
      const std::string_view behind = around[i + 1];
      std::optional<size_t> length;
      for (const std::string_view spelling : {std::string_view(content), Trimmed(content)}) {
        if (rest.starts_with(spelling) && rest.substr(spelling.size()).starts_with(behind)) length = spelling.size();
        if (length) break;
      }
      if (!length) return std::nullopt;
      const size_t begin = whole_.size() - rest.size();
      if (IsAssistant(*contents[i])) spans.push_back({begin, begin + *length + EndToken(behind)});
      rest.remove_prefix(*length + behind.size());
    }
    return rest.empty() ? std::optional(spans) : std::nullopt;
  }

  // Bytes of `behind` up to the end of the special token that it begins with; 0 if it doesn't.
  size_t EndToken(std::string_view behind) const {
    const std::vector<int32_t> ids = tokenizer_.Encode(behind, {.add_special_tokens = false});
    const auto special = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return tokenizer_.IsSpecial(id); });
    if (special == ids.end()) return 0;
    const std::string_view spelling = tokenizer_.IdToToken(*special);
    const size_t place = behind.find(spelling);
    if (place == std::string_view::npos || !IsBlank(behind.substr(0, place))) return 0;
    return place + spelling.size();
  }

  ConversationTokens Tokens(const std::vector<TextSpan>& spans) const {
    ConversationTokens result;
    result.token_ids = tokenizer_.Encode(whole_, {.add_special_tokens = false});
    result.by_assistant.assign(result.token_ids.size(), 0);
    for (const TextSpan& span : TokenSpans(spans, result.token_ids)) {
      std::fill(result.by_assistant.begin() + static_cast<int64_t>(span.begin),
                result.by_assistant.begin() + static_cast<int64_t>(WithoutTail(span, result.token_ids)), uint8_t{1});
    }
    return result;
  }

  // The same spans in tokens: those of the text cut at the spans' ends where that gives the whole's tokens, else where
  // the tokens of the text up to there part from the whole's.
  std::vector<TextSpan> TokenSpans(const std::vector<TextSpan>& spans, const std::vector<int32_t>& whole_ids) const {
    std::vector<int32_t> ids;
    size_t done = 0;
    const auto encode_to = [&](size_t end) {
      const std::string_view piece = std::string_view(whole_).substr(done, end - done);
      const std::vector<int32_t> more = tokenizer_.Encode(piece, {.add_special_tokens = false});
      ids.insert(ids.end(), more.begin(), more.end());
      done = end;
      return ids.size();
    };
    std::vector<TextSpan> result;
    for (const TextSpan& span : spans) {
      const size_t begin = encode_to(span.begin);
      result.push_back({begin, encode_to(span.end)});
    }
    encode_to(whole_.size());
    if (ids == whole_ids) return result;
    for (size_t i = 0; i < spans.size(); ++i) {
      const size_t begin = CommonTokens(spans[i].begin, whole_ids).first;
      const auto [common, all] = CommonTokens(spans[i].end, whole_ids);
      // A token that reaches over the end belongs to the answer.
      result[i] = {begin, std::min(whole_ids.size(), std::max(begin, common + (all ? 0 : 1)))};
    }
    return result;
  }

  // How many tokens the text up to `end` and the whole have in common, and whether these are all of the former.
  std::pair<size_t, bool> CommonTokens(size_t end, const std::vector<int32_t>& whole_ids) const {
    const std::vector<int32_t> ids =
        tokenizer_.Encode(std::string_view(whole_).substr(0, end), {.add_special_tokens = false});
    const auto [part, place] = std::mismatch(ids.begin(), ids.end(), whole_ids.begin(), whole_ids.end());
    return {static_cast<size_t>(part - ids.begin()), part == ids.end()};
  }

  // The span's end without what a template puts behind the token that ends a message (a newline, at the conversation's
  // end a further token): no model says that.
  size_t WithoutTail(TextSpan span, const std::vector<int32_t>& ids) const {
    const auto special = [&](size_t i) { return tokenizer_.IsSpecial(ids[i]); };
    const auto blank = [&](size_t i) {
      return !special(i) && IsBlank(tokenizer_.Decode(std::span(ids).subspan(i, 1), {}));
    };
    size_t end = span.end;
    while (end > span.begin && (special(end - 1) || blank(end - 1))) --end;
    while (end < span.end && blank(end)) ++end;
    while (end < span.end && special(end)) ++end;
    return end;
  }

  const ChatTemplate& template_;
  const Tokenizer& tokenizer_;
  const Json& messages_;
  const Json& variables_;
  const RenderOptions& options_;
  std::string whole_;
};

}  // namespace

Result<std::string> RenderConversation(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                       const Json& messages, const Json& variables, const RenderOptions& options) {
  const auto spelling = [&](std::optional<int32_t> id) {
    return std::string(id ? tokenizer.IdToToken(*id) : std::string_view());
  };
  Json all = {{"messages", messages},
              {"add_generation_prompt", true},
              {"bos_token", spelling(tokenizer.bos_token_id())},
              {"eos_token", spelling(tokenizer.eos_token_id())}};
  if (variables.is_object()) all.update(variables);
  return chat_template.Render(all, options);
}

Result<ConversationTokens> EncodeConversation(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                              const Json& messages, const Json& variables,
                                              const RenderOptions& options) {
  SWIFTKV_RETURN_IF_ERROR(CheckMessages(messages));
  return AssistantFinder(chat_template, tokenizer, messages, variables, options).Run();
}

}  // namespace swiftkv
