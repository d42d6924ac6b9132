#include "cli/calibration_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string_view>
#include <utility>

#include "base/distinct_names.h"
#include "base/file.h"
#include "checkpoint/json_file.h"
#include "cli/built_in_text.h"
#include "cli/teacher_text.h"
#include "distill/row_file.h"
#include "engine/engine.h"

namespace swiftkv {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;
constexpr size_t kPieceBytes = 4096;  // plain text is cut into documents of about this size
constexpr size_t kLongestPieceBytes = 65536;
constexpr int64_t kWriters = 32;     // sequences that the model writes side by side
constexpr int64_t kMaxHeldOut = 16;  // sequences

// One document, as it stands in its file.
struct Document {
  std::string text;
  bool json = false;
  std::string origin;  // for messages: file and line
};

std::vector<Document> CutText(std::string_view text, const std::string& origin) {
  std::vector<Document> documents;
  while (!text.empty()) {
    const size_t line_end = text.find('\n', std::min(text.size(), kPieceBytes));
    const size_t end =
        std::min({line_end == std::string_view::npos ? text.size() : line_end + 1, kLongestPieceBytes, text.size()});
    documents.push_back({std::string(text.substr(0, end)), false, origin});
    text.remove_prefix(end);
  }
  return documents;
}

std::vector<Document> CutLines(std::string_view text, const std::string& origin) {
  std::vector<Document> documents;
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) documents.push_back({std::string(text.substr(0, end)), true, fmt::format("{}:{}", origin, number)});
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return documents;
}

Result<std::vector<int32_t>> EncodeDocument(const Document& document, const TextModel& model) {
  if (!document.json) return model.tokenizer->Encode(document.text, {.add_special_tokens = true});
  if (document.text.size() > kMaxRowBytes) {
    return InvalidInput("{}: a line of {} bytes, the limit is {}", document.origin, document.text.size(), kMaxRowBytes);
  }
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::ordered_json json, ParseJsonObject(document.text, document.origin));
  if (json.contains("messages")) {
    auto text = RenderChat(model, json["messages"], {{"add_generation_prompt", false}});
    if (!text) return MakeError(text.error().code, "{}: {}", document.origin, text.error().message);
    return model.tokenizer->Encode(*text, {.add_special_tokens = false});
  }
  if (json.contains("text") && json["text"].is_string()) {
    return model.tokenizer->Encode(json["text"].get<std::string>() + "\n\n", {.add_special_tokens = true});
  }
  return InvalidInput("{}: not a JSON object with \"messages\" or \"text\"", document.origin);
}

// Cuts tokens into whole sequences; a text shorter than one is a sequence of its own.
std::vector<TokenSequence> Cut(const std::vector<int32_t>& tokens, int64_t length) {
  std::vector<TokenSequence> sequences;
  const auto size = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin + length <= size; begin += length) {
    sequences.emplace_back(tokens.begin() + begin, tokens.begin() + begin + length);
  }
  if (sequences.empty() && size >= 2) sequences.push_back(tokens);
  return sequences;
}

// The last tenth of a source is held out: at least one sequence where there are two.
void Divide(std::vector<TokenSequence> sequences, int64_t sources, CalibrationText* text) {
  const auto count = static_cast<int64_t>(sequences.size());
  const int64_t held =
      std::min(count / 2, std::clamp<int64_t>(count / 10, 1, std::max<int64_t>(1, kMaxHeldOut / sources)));
  for (int64_t i = 0; i < count; ++i) {
    (i < count - held ? text->fit : text->held_out.sequences).push_back(std::move(sequences[static_cast<size_t>(i)]));
  }
}

int64_t Tokens(const std::vector<TokenSequence>& sequences) {
  int64_t tokens = 0;
  for (const TokenSequence& sequence : sequences) tokens += static_cast<int64_t>(sequence.size());
  return tokens;
}

Status CheckEnough(const CalibrationText& text, const CalibrationTextOptions& options, const std::string& origin) {
  if (!text.fit.empty() && (!text.held_out.sequences.empty() || !options.needs_held_out)) return Ok();
  if (text.fit.empty()) return InvalidInput("{}: too little text: there is nothing to calibrate on", origin);
  return InvalidInput(
      "{}: too little text: it is one sequence, of {} tokens at most, and another is needed to measure on; give more "
      "text, --calibration-tokens {} or more, or --held-out FILE",
      origin, options.sequence_length, 2 * options.sequence_length);
}

// Documents in random order, encoded until there are `tokens` tokens.
Result<std::vector<int32_t>> EncodeShuffled(std::vector<Document> documents, const TextModel& model, int64_t tokens,
                                            uint64_t seed) {
  std::mt19937_64 random(seed);
  for (size_t i = documents.size(); i > 1; --i) std::swap(documents[i - 1], documents[random() % i]);
  std::vector<int32_t> ids;
  for (const Document& document : documents) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int32_t> encoded, EncodeDocument(document, model));
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    if (static_cast<int64_t>(ids.size()) >= tokens) break;
  }
  if (static_cast<int64_t>(ids.size()) > tokens) ids.resize(static_cast<size_t>(tokens));
  return ids;
}

std::string FileName(const std::string& path) { return std::filesystem::path(path).filename().string(); }

Result<std::vector<int32_t>> EncodeFile(const std::string& path, const TextModel& model, int64_t tokens,
                                        uint64_t seed) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxFileBytes));
  const bool lines = std::filesystem::path(path).extension() == ".jsonl";
  return EncodeShuffled(lines ? CutLines(content, path) : CutText(content, path), model, tokens, seed);
}

// What comes before a user's first words in a chat; empty without a chat template.
std::vector<int32_t> ChatOpening(const TextModel& model) {
  constexpr std::string_view kMark = "USERSPEAKS";
  const auto text = RenderChat(model, {{{"role", "user"}, {"content", kMark}}}, {{"add_generation_prompt", false}});
  const size_t place = text ? text->find(kMark) : std::string::npos;
  if (place == std::string::npos) return {};
  return model.tokenizer->Encode(text->substr(0, place), {.add_special_tokens = false});
}

}  // namespace

Result<CalibrationText> ReadCalibrationText(const std::vector<std::string>& paths, const TextModel& model,
                                            const CalibrationTextOptions& options) {
  CalibrationText text;
  text.held_out.name = "held out";
  const auto sources = static_cast<int64_t>(paths.size());
  std::vector<std::string> names;
  for (const std::string& path : paths) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                             EncodeFile(path, model, options.tokens / sources, options.seed));
    Divide(Cut(ids, options.sequence_length), sources, &text);
    names.push_back(FileName(path));
  }
  // Where no source has two sequences, some sources are held out.
  if (text.held_out.sequences.empty()) Divide(std::exchange(text.fit, {}), 1, &text);
  SWIFTKV_RETURN_IF_ERROR(CheckEnough(text, options, fmt::format("{}", fmt::join(names, ", "))));
  text.description = fmt::format("{} tokens of {}", Tokens(text.fit), fmt::join(names, ", "));
  return text;
}

Result<std::vector<HeldOutText>> ReadHeldOutText(const std::vector<std::string>& paths, const TextModel& model,
                                                 const CalibrationTextOptions& options) {
  std::vector<HeldOutText> texts;
  const std::vector<std::string> names = DistinctNames(paths);
  for (size_t i = 0; i < paths.size(); ++i) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, EncodeFile(paths[i], model, options.tokens, options.seed));
    texts.push_back({names[i], Cut(ids, options.sequence_length)});
    if (texts.back().sequences.empty()) return InvalidInput("{}: no text to measure on", paths[i]);
  }
  return texts;
}

Result<CalibrationText> BuiltInText(const TextModel& model, const CalibrationTextOptions& options) {
  CalibrationText text;
  text.held_out.name = "held out";
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                           EncodeShuffled(CutText(kBuiltInText, "built-in text"), model, options.tokens, options.seed));
  Divide(Cut(ids, options.sequence_length), 1, &text);
  SWIFTKV_RETURN_IF_ERROR(CheckEnough(text, options, "built-in text"));
  text.description = fmt::format("{} tokens of the built-in novels", Tokens(text.fit));
  return text;
}

Result<CalibrationText> WriteOwnText(const Weights& teacher, const TextModel& model,
                                     const CalibrationTextOptions& options, const std::function<bool()>& cancelled) {
  CalibrationTextOptions half = options;
  half.tokens /= 2;
  half.needs_held_out = false;  // what the model writes has some
  SWIFTKV_ASSIGN_OR_RETURN(CalibrationText text, BuiltInText(model, half));

  const int64_t length = std::min(options.sequence_length, teacher.config.max_position_embeddings);
  const int64_t count = std::max<int64_t>(2, half.tokens / length);
  const std::vector<int32_t> start = {
      model.tokenizer->bos_token_id().value_or(model.tokenizer->eos_token_id().value_or(0))};
  std::vector<int32_t> chat = ChatOpening(model);
  // A long opening, of a system message with tools, would leave the model little or nothing to write.
  if (chat.empty() || std::ssize(chat) > length / 2) chat = start;
  std::vector<Request> requests;
  for (int64_t i = 0; i < count; ++i) {
    Request request{.prompt_token_ids = i % 4 == 0 ? start : chat};
    request.sampling.max_tokens = length - static_cast<int64_t>(request.prompt_token_ids.size());
    request.sampling.seed = options.seed + static_cast<uint64_t>(i);
    request.sampling.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const auto engine,
                           CreateWriter(teacher, *model.tokenizer, length, std::min(count, kWriters)));
  const std::vector<Request> asked = requests;
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<GenerateResult> written, engine->Generate(std::move(requests), cancelled));

  std::vector<TokenSequence> sequences;
  for (size_t i = 0; i < written.size(); ++i) {
    TokenSequence& sequence = sequences.emplace_back(asked[i].prompt_token_ids);
    const std::vector<int32_t>& ids = written[i].completions.front().token_ids;
    sequence.insert(sequence.end(), ids.begin(), ids.end());
  }
  const int64_t tokens = Tokens(sequences);
  Divide(std::move(sequences), 2, &text);
  text.description += fmt::format(" and {} tokens that the base model wrote", tokens);
  return text;
}

}  // namespace swiftkv
