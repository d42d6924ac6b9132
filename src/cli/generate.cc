// swiftkv generate: one prompt, one completion (or n of them).
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/terminal.h"
#include "grammar/structured_output.h"

namespace swiftkv {
namespace {

struct Flags : GenerationFlags {
  bool chat = false;
  std::string json_schema;
  bool json_object = false;
};

// What --json-schema or --json-object asks for; null: nothing.
Result<std::shared_ptr<const TokenConstraintFactory>> Constraint(const Flags& flags, const LoadedModel& model) {
  if (flags.json_schema.empty() && !flags.json_object) return nullptr;
  SWIFTKV_ASSIGN_OR_RETURN(auto trie, TokenTrie::Create(*model.text.tokenizer, model.weights.config.vocab_size));
  if (flags.json_object) return CompileJsonObject(std::move(trie));
  const bool is_text = flags.json_schema.find_first_not_of(" \t\r\n") == flags.json_schema.find('{');
  if (is_text) return CompileJsonSchema(flags.json_schema, std::move(trie));
  SWIFTKV_ASSIGN_OR_RETURN(const std::string schema, ReadFile(flags.json_schema, kMaxSchemaBytes));
  return CompileJsonSchema(schema, std::move(trie));
}

Result<std::string> ReadPrompt(const Flags& flags) {
  SWIFTKV_ASSIGN_OR_RETURN(std::optional<std::string> text, flags.Text());
  if (text) return std::move(*text);
  if (isatty(STDIN_FILENO) == 1) {
    return InvalidInput("no prompt: give --prompt TEXT, --file FILE, or text on standard input");
  }
  SWIFTKV_ASSIGN_OR_RETURN(std::string input, ReadAllInput(kMaxPromptBytes));
  SWIFTKV_RETURN_IF_ERROR(CheckPrompt(input, "standard input"));
  return input;
}

Result<std::vector<int32_t>> EncodePrompt(const Flags& flags, const std::string& text, const TextModel& model) {
  if (!flags.chat) return model.tokenizer->Encode(text, {.add_special_tokens = true});
  nlohmann::ordered_json messages = flags.Messages();
  messages.push_back({{"role", "user"}, {"content", text}});
  SWIFTKV_ASSIGN_OR_RETURN(const std::string prompt, RenderChat(model, messages, nullptr));
  return model.tokenizer->Encode(prompt, {.add_special_tokens = false});
}

Status Generate(const Flags& flags) {
  SWIFTKV_ASSIGN_OR_RETURN(const SamplingParams sampling, flags.sampling.Parse());
  if (sampling.n > 1 && !flags.output.json) return InvalidInput("--n {} needs --json", sampling.n);
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadPrompt(flags));
  SWIFTKV_ASSIGN_OR_RETURN(const LoadedModel model, flags.model.Load());
  SWIFTKV_RETURN_IF_ERROR(Validate(sampling, model.weights.config.vocab_size));

  Request request{.sampling = sampling};
  SWIFTKV_ASSIGN_OR_RETURN(request.prompt_token_ids, EncodePrompt(flags, text, model.text));
  SWIFTKV_ASSIGN_OR_RETURN(request.constraint, Constraint(flags, model));
  const auto prompt_tokens = static_cast<int64_t>(request.prompt_token_ids.size());
  EngineOptions options = MakeEngineOptions(flags.model, model);
  const int64_t room = std::max<int64_t>(options.max_model_len - prompt_tokens, 1);
  options.kv_cache_tokens = (std::min(prompt_tokens, options.max_model_len) +
                             std::min(sampling.max_tokens.value_or(room), room) + kKvBlockTokens) *
                            sampling.n;
  SWIFTKV_ASSIGN_OR_RETURN(auto engine, Engine::Create(model.weights, model.mode, model.text.tokenizer.get(), options));

  bool ends_line = true;
  const auto stream = [&](std::string_view piece) {
    ends_line = piece.ends_with('\n');
    return WriteOutput(piece);
  };
  const bool json = flags.output.json;
  SWIFTKV_ASSIGN_OR_RETURN(
      const Answer answer,
      RunRequest(engine.get(), std::move(request), json ? nullptr : std::function<Status(std::string_view)>(stream)));
  if (json) {
    SWIFTKV_RETURN_IF_ERROR(WriteOutput(JsonLine(AnswerJson(answer, model))));
  } else if (!ends_line) {
    SWIFTKV_RETURN_IF_ERROR(WriteOutput("\n"));
  }
  if (!flags.output.quiet) WriteNote(TimingsLine(answer));
  if (answer.interrupted) return MakeError(ErrorCode::kCancelled, "interrupted");
  return Ok();
}

}  // namespace

RunCommand AddGenerateCommand(CLI::App* program) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program->add_subcommand("generate", "Complete a prompt");
  flags->model.AddAll(command);
  auto* prompt = command->add_option("prompt,-p,--prompt", flags->prompt, "The text to complete");
  command
      ->add_option("-f,--file", flags->file,
                   "Read the prompt from a file; - is standard input, which is also the default")
      ->type_name("FILE")
      ->excludes(prompt);
  auto* chat =
      command->add_flag("--chat", flags->chat, "The prompt is a user's message: apply the model's chat template");
  command->add_option("--system", flags->system, "System message for --chat")->needs(chat);
  flags->sampling.Add(command);
  auto* schema = command
                     ->add_option("-j,--json-schema", flags->json_schema,
                                  "The answer is JSON that satisfies this schema: a file, or the schema itself")
                     ->type_name("FILE|TEXT");
  command->add_flag("--json-object", flags->json_object, "The answer is a JSON object")->excludes(schema);
  command->add_option("--n", flags->sampling.params.n, "Completions of the prompt; more than one needs --json")
      ->capture_default_str();
  command->add_option("--logprobs", flags->sampling.params.logprobs,
                      "With --json: log-probability of each token and of that many alternatives");
  command->add_option("--prompt-logprobs", flags->sampling.params.prompt_logprobs,
                      "With --json: the same for the prompt's tokens");
  flags->output.Add(command);
  FinishCommand(command,
                "Examples:\n"
                "  swiftkv generate smollm2-135m --prompt \"The capital of France is\" --max-tokens 16\n"
                "  swiftkv generate smollm2-135m --chat --file question.txt --adapter my-adapter --json\n"
                "  swiftkv generate --chat --prompt \"Name a city\" --json-schema city.schema.json\n"
                "  cat report.txt | swiftkv generate smollm2-135m --stop $'\\n' --temperature 0.7 --seed 1\n");
  return [flags] { return Generate(*flags); };
}

}  // namespace swiftkv
