// A conversation as the tokens that its model was trained on, and which of them the assistant says.
//
//   SWIFTKV_ASSIGN_OR_RETURN(ConversationTokens tokens, EncodeConversation(chat_template, tokenizer, messages, {}));
//   // tokens.by_assistant[i] is 1 for the answers' tokens and for the tokens that end them
#ifndef SWIFTKV_TEXT_CONVERSATION_H_
#define SWIFTKV_TEXT_CONVERSATION_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace swiftkv {

// `messages`: a JSON array of {"role", "content"}; `variables`: more for the template, an object or null. The template
// is told the tokenizer's bos_token and eos_token, and to add a generation prompt unless `variables` say otherwise.
// Errors: the template's.
Result<std::string> RenderConversation(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                       const nlohmann::ordered_json& messages, const nlohmann::ordered_json& variables,
                                       const RenderOptions& options = {});

struct ConversationTokens {
  std::vector<int32_t> token_ids;     // of the whole conversation, rendered without a generation prompt
  std::vector<uint8_t> by_assistant;  // [tokens] 1: of an assistant's message or the token that ends it
};

inline constexpr size_t kMaxConversationMessages = 1024;

// An assistant's message reaches from where a generation prompt ends to where the conversation up to it ends. Where the
// template renders a part of a conversation otherwise than the same part of the whole (it drops earlier thoughts, say),
// the messages' contents are looked for between the words that the template puts around them.
// Errors kInvalidInput: no conversation; the template's; neither way finds the assistant's words.
Result<ConversationTokens> EncodeConversation(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                              const nlohmann::ordered_json& messages,
                                              const nlohmann::ordered_json& variables,
                                              const RenderOptions& options = {});

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_CONVERSATION_H_
