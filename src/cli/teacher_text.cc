#include "cli/teacher_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>

#include "checkpoint/json_file.h"
#include "cli/answer_file.h"
#include "distill/permutation.h"
#include "distill/progress.h"
#include "distill/source.h"
#include "engine/memory.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Prompt {
  std::vector<int32_t> token_ids;
  Json messages;  // null: a text to be continued
};

// Draw d is the same prompt in every run: a row of one of the sources, in an order that the seed gives; after all rows
// they come again in another order.
class Prompts {
 public:
  static Result<Prompts> Open(const std::vector<SourceRecipe>& recipes, const TextModel& text,
                              const TeacherTextOptions& options) {
    Prompts prompts(text, options);
    SWIFTKV_ASSIGN_OR_RETURN(std::vector<Source> sources, OpenSources(recipes, static_cast<uint64_t>(options.seed)));
    for (Source& source : sources) {
      if (source.recipe.role != SourceRole::kPrompts) continue;
      prompts.rows_ += source.train.size();
      prompts.fingerprint_ = CombineHashes(prompts.fingerprint_, source.fingerprint);
      prompts.sources_.push_back(std::move(source));
    }
    if (prompts.sources_.empty()) return InvalidInput("there is no source of prompts (role: prompts)");
    return prompts;
  }

  uint64_t fingerprint() const { return fingerprint_; }
  int64_t rows() const { return static_cast<int64_t>(rows_); }
  const std::string& path() const { return sources_.front().recipe.path; }

  // Error kInvalidInput: the row can't serve as a prompt.
  Result<Prompt> Draw(int64_t draw) const {
    const auto number = static_cast<uint64_t>(draw);
    uint64_t row =
        Permutation(rows_, CombineHashes(static_cast<uint64_t>(options_.seed), number / rows_))(number % rows_);
    size_t source = 0;
    while (row >= sources_[source].train.size()) row -= sources_[source++].train.size();
    SWIFTKV_ASSIGN_OR_RETURN(Prompt prompt, Read(sources_[source].file, sources_[source].TrainRow(row)));
    const auto tokens = static_cast<int64_t>(prompt.token_ids.size());
    if (tokens == 0 || tokens > options_.prompt_tokens) {
      return InvalidInput("a prompt of {} tokens, the limit is {}", tokens, options_.prompt_tokens);
    }
    return prompt;
  }

 private:
  Prompts(const TextModel& text, const TeacherTextOptions& options) : text_(text), options_(options) {}

  Result<Prompt> Read(const RowFile& file, const RowFile::Row& row) const {
    if (!file.is_json()) return Beginning(row.text);
    if (row.text.size() > kMaxRowBytes) return InvalidInput("a line that is too long");
    SWIFTKV_ASSIGN_OR_RETURN(Json json, ParseJsonObject(row.text, "line"));
    if (const auto messages = json.find("messages"); messages != json.end()) return Conversation(std::move(*messages));
    const auto field = json.find("text");
    if (field == json.end() || !field->is_string()) return InvalidInput("it has neither messages nor a text");
    return Beginning(field->get_ref<const std::string&>());
  }

  Prompt Beginning(std::string_view document) const {
    // The document may be long, and hardly a token is.
    constexpr int64_t kBytesPerToken = 64;
    document = document.substr(0, static_cast<size_t>(options_.prefix_tokens * kBytesPerToken));
    Prompt prompt{text_.tokenizer->Encode(document, {.add_special_tokens = true}), nullptr};
    if (static_cast<int64_t>(prompt.token_ids.size()) > options_.prefix_tokens) {
      prompt.token_ids.resize(static_cast<size_t>(options_.prefix_tokens));
    }
    return prompt;
  }

  // All before the last answer.
  Result<Prompt> Conversation(Json messages) const {
    if (!messages.is_array()) return InvalidInput("messages must be a list");
    for (size_t i = messages.size(); i > 0; --i) {
      const Json& message = messages[i - 1];
      if (!message.is_object() || !message.contains("role")) return InvalidInput("a message without a role");
      if (message["role"] != Json("assistant")) continue;
      messages.erase(messages.begin() + static_cast<int64_t>(i - 1), messages.end());
      break;
    }
    if (messages.empty()) return InvalidInput("nothing is said before the answer");
    SWIFTKV_ASSIGN_OR_RETURN(const std::string rendered, RenderChat(text_, messages, nullptr));
    return Prompt{text_.tokenizer->Encode(rendered, {.add_special_tokens = false}), std::move(messages)};
  }

  const TextModel& text_;
  const TeacherTextOptions options_;
  std::vector<Source> sources_;
  uint64_t rows_ = 0;
  uint64_t fingerprint_ = 0;
};

// What the rows follow from, but for their number.
uint64_t JobOf(const Prompts& prompts, const ModelConfig& config, const TeacherTextOptions& options) {
  const GenerateRecipe& generate = options.generate;
  const std::string all =
      fmt::format("{} {} {} {} {} {} {} {} {} {} {}", prompts.fingerprint(), options.seed, options.prompt_tokens,
                  options.prefix_tokens, generate.max_tokens, generate.temperature, generate.top_p,
                  config.num_hidden_layers, config.hidden_size, config.vocab_size, options.model);
  return HashRow(all);
}

class TeacherWriter {
 public:
  TeacherWriter(Prompts prompts, AnswerFile file, std::unique_ptr<Engine> engine, const Tokenizer& tokenizer,
                const TeacherTextOptions& options)
      : prompts_(std::move(prompts)),
        file_(std::move(file)),
        engine_(std::move(engine)),
        tokenizer_(tokenizer),
        options_(options),
        next_draw_(file_.next_draw()) {
    text_.found = file_.rows();
    text_.wanted = options.generate.count;
  }

  Result<TeacherText> Run(const std::function<bool(const TeacherText&)>& go_on) {
    const Clock::time_point start = Clock::now();
    while (file_.rows() < options_.generate.count) {
      SWIFTKV_RETURN_IF_ERROR(Fill());
      text_.rows = file_.rows();
      text_.seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (!go_on(text_)) {
        return MakeError(ErrorCode::kCancelled, "interrupted after {} of {} answers, which are kept", file_.rows(),
                         options_.generate.count);
      }
      for (RequestOutput& output : engine_->Step()) {
        SWIFTKV_RETURN_IF_ERROR(std::move(output.error));
        Take(std::move(output));
      }
      SWIFTKV_RETURN_IF_ERROR(WriteDone());
    }
    SWIFTKV_RETURN_IF_ERROR(file_.Finish());
    text_.rows = file_.rows();
    text_.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return text_;
  }

 private:
  struct Row {
    int64_t draw = 0;
    int64_t request_id = 0;
    Prompt prompt;
    Completion answer;
    bool done = false;
  };

  // Keeps the engine busy. Rows wait for those drawn before them, so that the file's order is that of the draws.
  Status Fill() {
    const auto busy = [&] {
      return std::count_if(rows_.begin(), rows_.end(), [](const Row& row) { return !row.done; });
    };
    // Twice as many as run side by side, so that a place that gets free is filled in the same step.
    while (busy() < 2 * options_.parallel &&
           file_.rows() + static_cast<int64_t>(rows_.size()) < options_.generate.count) {
      Row row{.draw = next_draw_++, .request_id = 0, .prompt = {}, .answer = {}, .done = false};
      Result<Prompt> prompt = prompts_.Draw(row.draw);
      if (!prompt) {
        ++text_.passed_over;
        // So many draws in a row have a whole pass among them.
        if (++passed_over_in_a_row_ < 2 * prompts_.rows()) continue;
        return InvalidInput("{}: no row of the prompts can be used: {}", prompts_.path(), prompt.error().message);
      }
      passed_over_in_a_row_ = 0;
      row.prompt = std::move(*prompt);
      SWIFTKV_ASSIGN_OR_RETURN(row.request_id, engine_->Add(RequestFor(row)));
      rows_.push_back(std::move(row));
    }
    return Ok();
  }

  Request RequestFor(const Row& row) const {
    Request request{.prompt_token_ids = row.prompt.token_ids};
    request.sampling.temperature = options_.generate.temperature;
    request.sampling.top_p = options_.generate.top_p;
    request.sampling.seed = CombineHashes(static_cast<uint64_t>(options_.seed), static_cast<uint64_t>(row.draw));
    request.sampling.max_tokens = std::min(
        options_.generate.max_tokens, engine_->max_model_len() - static_cast<int64_t>(row.prompt.token_ids.size()));
    return request;
  }

  void Take(RequestOutput output) {
    const auto row =
        std::find_if(rows_.begin(), rows_.end(), [&](const Row& each) { return each.request_id == output.request_id; });
    if (row == rows_.end()) return;
    text_.tokens += static_cast<int64_t>(output.token_ids.size());
    row->done = output.finish_reason.has_value();
    Append(std::move(output), &row->answer);
  }

  Status WriteDone() {
    while (!rows_.empty() && rows_.front().done) {
      SWIFTKV_RETURN_IF_ERROR(file_.Append(RowJson(rows_.front()), rows_.front().draw));
      rows_.pop_front();
    }
    return Ok();
  }

  Json RowJson(Row& row) const {
    if (row.prompt.messages.is_null()) {
      std::vector<int32_t> ids = std::move(row.prompt.token_ids);
      ids.insert(ids.end(), row.answer.token_ids.begin(), row.answer.token_ids.end());
      return {{"text", tokenizer_.Decode(ids, {})}};
    }
    Json messages = std::move(row.prompt.messages);
    messages.push_back({{"role", "assistant"}, {"content", row.answer.text}});
    return {{"messages", std::move(messages)}};
  }

  Prompts prompts_;
  AnswerFile file_;
  std::unique_ptr<Engine> engine_;
  const Tokenizer& tokenizer_;
  const TeacherTextOptions options_;
  int64_t next_draw_;
  int64_t passed_over_in_a_row_ = 0;
  std::deque<Row> rows_;  // by draw
  TeacherText text_;
};

}  // namespace

Result<std::unique_ptr<Engine>> CreateWriter(const Weights& teacher, const Tokenizer& tokenizer, int64_t length,
                                             int64_t parallel) {
  const int64_t token_bytes = CacheLayout(teacher, Mode::kTeacher).bytes_per_token();
  const int64_t available = AvailableBytes(teacher.backend->memory());
  const int64_t one = length + kKvBlockTokens;
  int64_t tokens = parallel * one;
  if (available > 0) tokens = std::clamp(available / 2 / token_bytes, one, tokens);
  EngineOptions options;
  options.max_model_len = length;
  options.kv_cache_tokens = tokens;
  options.scheduler.max_num_seqs = parallel;
  options.scheduler.max_num_batched_tokens = std::max(options.scheduler.max_num_batched_tokens, parallel);
  return Engine::Create(teacher, Mode::kTeacher, &tokenizer, options);
}

Result<TeacherText> WriteTeacherText(const std::vector<SourceRecipe>& sources, const Weights& teacher,
                                     const TextModel& text, const TeacherTextOptions& options, const std::string& path,
                                     const std::function<bool(const TeacherText&)>& go_on) {
  const int64_t length =
      std::min(options.prompt_tokens + options.generate.max_tokens, teacher.config.max_position_embeddings);
  TeacherTextOptions limited = options;
  limited.prompt_tokens = std::min(options.prompt_tokens, std::max(length - options.generate.max_tokens, length / 2));
  limited.prefix_tokens = std::min(options.prefix_tokens, limited.prompt_tokens);
  SWIFTKV_ASSIGN_OR_RETURN(Prompts prompts, Prompts::Open(sources, text, limited));
  SWIFTKV_ASSIGN_OR_RETURN(AnswerFile file, AnswerFile::Open(path, JobOf(prompts, teacher.config, limited)));
  SWIFTKV_ASSIGN_OR_RETURN(auto engine, CreateWriter(teacher, *text.tokenizer, length, options.parallel));
  TeacherWriter writer(std::move(prompts), std::move(file), std::move(engine), *text.tokenizer, limited);
  return writer.Run(go_on);
}

std::string ProgressLine(const TeacherText& text) {
  const int64_t written = text.rows - text.found;
  const double left =
      written > 0 ? text.seconds / static_cast<double>(written) * static_cast<double>(text.wanted - text.rows) : 0;
  return fmt::format("answers {} of {}, {:.0f} tok/s{}", text.rows, text.wanted,
                     text.seconds > 0 ? static_cast<double>(text.tokens) / text.seconds : 0,
                     written > 0 ? fmt::format(", {} left", DurationText(left)) : std::string());
}

}  // namespace swiftkv
