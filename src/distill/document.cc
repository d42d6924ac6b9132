#include "distill/document.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "checkpoint/json_file.h"
#include "text/conversation.h"

namespace swiftkv {
namespace {

// A row is a few kilobytes in practice; what takes more work than this is made to take it.
constexpr TemplateLimits kRowLimits = {
    .steps = 2'000'000, .depth = 200, .output_bytes = 64 << 20, .memory_bytes = 256 << 20};

Document AllCount(std::vector<int32_t> token_ids) {
  Document document;
  document.counts.assign(token_ids.size(), 1);
  document.token_ids = std::move(token_ids);
  return document;
}

bool AnyCounts(const PackedSequence& row) {
  return std::find(row.in_loss.begin(), row.in_loss.end(), 1) != row.in_loss.end();
}

Result<Document> EncodeMessages(const nlohmann::ordered_json& json, const DatasetText& text,
                                std::chrono::system_clock::time_point now) {
  if (text.chat_template == nullptr) return InvalidInput("the model has no chat template to render messages with");
  nlohmann::ordered_json variables;
  if (const auto tools = json.find("tools"); tools != json.end()) variables = {{"tools", *tools}};
  SWIFTKV_ASSIGN_OR_RETURN(ConversationTokens conversation,
                           EncodeConversation(*text.chat_template, *text.tokenizer, json["messages"], variables,
                                              {.limits = kRowLimits, .origin = {}, .now = now}));
  return Document{std::move(conversation.token_ids), std::move(conversation.by_assistant)};
}

Result<Document> EncodeJson(std::string_view line, const DatasetText& text, std::chrono::system_clock::time_point now) {
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::ordered_json json, ParseJsonObject(line, "line"));
  if (json.contains("messages")) return EncodeMessages(json, text, now);
  const auto field = json.find("text");
  if (field == json.end() || !field->is_string()) return InvalidInput("it has neither messages nor a text");
  return AllCount(text.tokenizer->Encode(field->get_ref<const std::string&>(), {.add_special_tokens = true}));
}

}  // namespace

Result<Document> EncodeRow(const RowFile& file, const RowFile::Row& row, const DatasetText& text, bool mask_inputs,
                           std::chrono::system_clock::time_point now) {
  Document document;
  if (!file.is_json()) {
    document = AllCount(text.tokenizer->Encode(row.text, {.add_special_tokens = true}));
  } else if (row.text.size() > kMaxRowBytes) {
    return InvalidInput("a line of {} bytes, the limit is {}", row.text.size(), kMaxRowBytes);
  } else {
    SWIFTKV_ASSIGN_OR_RETURN(document, EncodeJson(row.text, text, now));
  }
  if (!mask_inputs) document.counts.assign(document.token_ids.size(), 1);
  // The first token is never predicted.
  if (document.tokens() < 2 ||
      std::find(document.counts.begin() + 1, document.counts.end(), 1) == document.counts.end()) {
    return InvalidInput("nothing in it counts in the loss");
  }
  return document;
}

Packer::Packer(const DataRecipe& recipe)
    : max_length_(recipe.max_length),
      mask_inputs_(recipe.mask_inputs),
      pack_(recipe.pack_samples),
      cut_to_fill_(recipe.always_max_length) {}

int64_t Packer::Add(const Document& document, int64_t offset) {
  const int64_t space = max_length_ - row_.tokens();
  int64_t take = std::min(document.tokens() - offset, max_length_);
  const bool cut = take > space;
  if (cut) {
    // One token alone says nothing.
    if (!cut_to_fill_ || space < 2) {
      full_ = true;
      return 0;
    }
    take = space;
  }
  const auto ids = document.token_ids.begin() + offset;
  const auto counts = document.counts.begin() + offset;
  if (!cut && std::find(counts + 1, counts + take, 1) == counts + take) return take;
  row_.document_begins.push_back(row_.tokens());
  row_.token_ids.insert(row_.token_ids.end(), ids, ids + take);
  row_.in_loss.insert(row_.in_loss.end(), counts, counts + take);
  full_ = !pack_ || row_.tokens() == max_length_;
  return take;
}

std::optional<PackedSequence> Packer::Take(bool fused) {
  PackedSequence row = std::exchange(row_, {});
  full_ = false;
  if (fused && !row.document_begins.empty()) row.document_begins = {0};
  if (!mask_inputs_) return AnyCounts(row) ? std::optional(std::move(row)) : std::nullopt;
  std::rotate(row.in_loss.begin(), row.in_loss.begin() + (row.in_loss.empty() ? 0 : 1), row.in_loss.end());
  for (size_t i = 1; i <= row.document_begins.size(); ++i) {
    const int64_t end = i < row.document_begins.size() ? row.document_begins[i] : row.tokens();
    row.in_loss[static_cast<size_t>(end - 1)] = 0;
  }
  return AnyCounts(row) ? std::optional(std::move(row)) : std::nullopt;
}

bool CutRow(int64_t tokens, bool mask_inputs, PackedSequence* row) {
  row->token_ids.resize(static_cast<size_t>(tokens));
  row->in_loss.resize(static_cast<size_t>(tokens));
  while (row->document_begins.back() >= tokens) row->document_begins.pop_back();
  if (mask_inputs) row->in_loss.back() = 0;
  return AnyCounts(*row);
}

}  // namespace swiftkv
