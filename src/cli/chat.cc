// swiftkv chat: a conversation. Each turn computes only what the K/V cache does not hold from the turns before.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/line_editor.h"
#include "cli/terminal.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

struct Flags : GenerationFlags {
  std::string template_kwargs;
};

constexpr int64_t kMaxKwargsDepth = 32;

// --chat-template-kwargs: a JSON object, or nothing.
Result<Json> ParseKwargs(const std::string& text) {
  if (text.empty()) return Json(nullptr);
  const auto within_depth = [](int depth, Json::parse_event_t, Json&) { return depth <= kMaxKwargsDepth; };
  Json json = Json::parse(text, within_depth, /*allow_exceptions=*/false);
  if (!json.is_object())
    return InvalidInput("--chat-template-kwargs: it must be a JSON object, such as {{\"a\": true}}");
  return json;
}

// The messages so far, and the engine that answers the last of them.
class Conversation {
 public:
  Conversation(const Flags& flags, const LoadedModel& model, Engine* engine, SamplingParams sampling, Json kwargs)
      : flags_(flags), model_(model), engine_(engine), sampling_(std::move(sampling)), kwargs_(std::move(kwargs)) {
    Reset();
  }

  void Reset() { messages_ = flags_.Messages(); }

  // Answers `text` on standard output. After an error the conversation is as before.
  Status Turn(const std::string& text) {
    SWIFTKV_RETURN_IF_ERROR(CheckPrompt(text, "the message"));
    messages_.push_back({{"role", "user"}, {"content", text}});
    Result<Answer> answer = AnswerMessages();
    if (!answer) {
      messages_.erase(messages_.size() - 1);
      return tl::unexpected<Error>(std::move(answer).error());
    }
    messages_.push_back({{"role", "assistant"}, {"content", answer->completions.front().text}});
    if (flags_.output.json) {
      SWIFTKV_RETURN_IF_ERROR(WriteOutput(JsonLine(AnswerJson(*answer, model_))));
    } else {
      SWIFTKV_RETURN_IF_ERROR(WriteOutput("\n"));
    }
    if (!flags_.output.quiet) {
      WriteNote(TimingsLine(*answer));
      if (answer->prompt_tokens + answer->completion_tokens() >= engine_->max_model_len()) {
        WriteNote(
            fmt::format("the context of {} tokens is full; /reset forgets the conversation", engine_->max_model_len()));
      }
    }
    return Ok();
  }

 private:
  Result<Answer> AnswerMessages() {
    SWIFTKV_ASSIGN_OR_RETURN(const std::string prompt, RenderChat(model_.text, messages_, kwargs_));
    Request request{.sampling = sampling_};
    request.prompt_token_ids = model_.text.tokenizer->Encode(prompt, {.add_special_tokens = false});
    const auto tokens = static_cast<int64_t>(request.prompt_token_ids.size());
    const bool first_turn = messages_.size() == (flags_.system.empty() ? 1 : 2);
    if (tokens >= engine_->max_model_len() && !first_turn) {
      return InvalidInput("the conversation has {} tokens with this message; the context holds {}: /reset forgets it",
                          tokens, engine_->max_model_len());
    }
    if (flags_.output.json) return RunRequest(engine_, std::move(request), nullptr);
    return RunRequest(engine_, std::move(request), WriteOutput);
  }

  const Flags& flags_;
  const LoadedModel& model_;
  Engine* engine_;
  SamplingParams sampling_;
  Json kwargs_;
  Json messages_;
};

// Does what a line says. False: it ends the conversation.
Result<bool> TakeLine(const std::optional<std::string>& line, Conversation* conversation) {
  if (!line || *line == "/exit") return false;
  if (*line == "/reset") {
    conversation->Reset();
  } else if (!line->empty()) {
    SWIFTKV_RETURN_IF_ERROR(conversation->Turn(*line));
  }
  return true;
}

// Turns typed at a terminal, where a message that cannot be answered and Ctrl-C end nothing.
Status ConverseAtTerminal(LineEditor* editor, Conversation* conversation) {
  WriteNote("A line is a message. /reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer.");
  while (true) {
    Result<bool> more = true;
    const Result<std::optional<std::string>> line = editor->Next(kMaxPromptBytes);
    if (line) {
      more = TakeLine(*line, conversation);
    } else {
      more = tl::unexpected<Error>(line.error());
    }
    if (Interrupted() == SIGINT) ClearInterrupt();
    if (Interrupted() != 0) return MakeError(ErrorCode::kCancelled, "interrupted");
    if (more && !*more) return Ok();
    if (more) continue;
    if (more.error().code != ErrorCode::kInvalidInput) return tl::unexpected<Error>(more.error());
    WriteNote("swiftkv: " + more.error().message);
  }
}

// Turns from standard input, a line each, until its end or /exit.
Status ConverseByLines(Conversation* conversation) {
  LineReader lines(kMaxPromptBytes);
  while (true) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::optional<std::string> line, lines.Next());
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, TakeLine(line, conversation));
    if (Interrupted() != 0) return MakeError(ErrorCode::kCancelled, "interrupted");
    if (!more) return Ok();
  }
}

Status Chat(const Flags& flags) {
  SWIFTKV_ASSIGN_OR_RETURN(const SamplingParams sampling, flags.sampling.Parse());
  SWIFTKV_ASSIGN_OR_RETURN(Json kwargs, ParseKwargs(flags.template_kwargs));
  SWIFTKV_ASSIGN_OR_RETURN(const std::optional<std::string> message, flags.Text());
  if (!flags.system.empty()) SWIFTKV_RETURN_IF_ERROR(CheckPrompt(flags.system, "--system"));
  SWIFTKV_ASSIGN_OR_RETURN(const LoadedModel model, flags.model.Load());
  if (!model.text.chat_template) return tl::unexpected<Error>(model.text.chat_template.error());
  SWIFTKV_ASSIGN_OR_RETURN(auto engine, Engine::Create(model.weights, model.mode, model.text.tokenizer.get(),
                                                       MakeEngineOptions(flags.model, model)));
  Conversation conversation(flags, model, engine.get(), sampling, std::move(kwargs));
  if (!message) {
    const std::unique_ptr<LineEditor> editor = LineEditor::Create("> ");
    return editor == nullptr ? ConverseByLines(&conversation) : ConverseAtTerminal(editor.get(), &conversation);
  }
  SWIFTKV_RETURN_IF_ERROR(conversation.Turn(*message));
  if (Interrupted() != 0) return MakeError(ErrorCode::kCancelled, "interrupted");
  return Ok();
}

}  // namespace

RunCommand AddChatCommand(CLI::App* program) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program->add_subcommand("chat", "Talk with a model");
  flags->model.AddAll(command);
  auto* prompt = command->add_option("-p,--prompt", flags->prompt, "One message: answer it and end");
  command
      ->add_option("-f,--file", flags->file, "One message, read from a file (- is standard input): answer it and end")
      ->type_name("FILE")
      ->excludes(prompt);
  command->add_option("--system", flags->system, "System message");
  command->add_option("--chat-template-kwargs", flags->template_kwargs, "More variables for the chat template")
      ->type_name("JSON");
  flags->sampling.Add(command);
  flags->output.Add(command);
  FinishCommand(
      command,
      "Without --prompt or --file every line of standard input is a message, from a terminal as from a pipe.\n"
      "Lines /reset and /exit forget the conversation and end it.\n\n"
      "Examples:\n"
      "  swiftkv chat smollm2-135m\n"
      "  swiftkv chat smollm2-135m --system \"Answer in one sentence.\" --prompt \"What is a glacier?\"\n"
      "  printf 'Hello\\nAnd now?\\n' | swiftkv chat smollm2-135m --json\n");
  return [flags] { return Chat(*flags); };
}

}  // namespace swiftkv
