// swiftkv eval: the model card's seven evaluations, perplexity and fidelity; base and SwiftKV side by side.
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/durable_folder.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/progress_bar.h"
#include "cli/terminal.h"
#include "eval/hash.h"
#include "eval/report.h"
#include "eval/results.h"

namespace swiftkv {
namespace {

constexpr char kPerplexity[] = "perplexity";
constexpr char kFidelity[] = "fidelity";
constexpr int64_t kMaxTextBytes = 256 << 20;

// What the card's runs call a task, and our name of it.
constexpr std::pair<std::string_view, std::string_view> kCardNames[] = {
    {"arc_challenge_llama_3.1_instruct", "arc_challenge"},
    {"mmlu_llama_3.1_instruct", "mmlu"},
    {"mmlu_cot_0shot_llama_3.1_instruct", "mmlu_cot"},
    {"gsm8k_cot_llama_3.1_instruct", "gsm8k"},
};

struct Flags {
  ModelFlags model;
  std::vector<std::string> adapters;
  std::vector<std::string> tasks;
  std::string protocol = "card";
  std::string truthfulqa_labels = "all";
  std::string data;
  std::vector<std::string> texts;
  int64_t text_tokens = 0;
  int64_t window_tokens = 2048;
  std::string output_path;
  bool log_samples = false;
  // lm-eval's, which may ask for what the protocol does:
  std::optional<int> num_fewshot;
  bool apply_chat_template = false;
  bool fewshot_as_multiturn = false;
  OutputFlags output;
  EvaluationOptions options;
};

class EvalCommand {
 public:
  explicit EvalCommand(const Flags& flags) : flags_(flags), bar_(!flags.output.quiet && isatty(STDERR_FILENO) == 1) {}

  Status Run() {
    const auto start = std::chrono::steady_clock::now();
    SWIFTKV_RETURN_IF_ERROR(CheckFlags());
    SWIFTKV_RETURN_IF_ERROR(LoadTasks());
    SWIFTKV_RETURN_IF_ERROR(LoadTexts());
    SWIFTKV_RETURN_IF_ERROR(NameAdapters());
    if (!flags_.output_path.empty()) SWIFTKV_RETURN_IF_ERROR(MakeFolders(flags_.output_path));
    run_.model = flags_.model.model;
    run_.task_options = task_options();
    run_.data_folder = flags_.data;
    run_.start_time =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    run_.options = flags_.options;
    if (flags_.model.max_model_len > 0) run_.options.max_model_len = flags_.model.max_model_len;
    run_.options.kv_cache_dtype = ParseCacheType(flags_.model.kv_cache_dtype);
    // Of the model's own type: the same as none.
    if (run_.options.kv_cache_dtype == DType::kBF16 && flags_.model.dtype != "f32") run_.options.kv_cache_dtype.reset();
    SWIFTKV_ASSIGN_OR_RETURN(const kernels::Backend* backend, ChooseDevice(flags_.model.device));
    run_.options.max_num_batched_tokens = flags_.model.BatchedTokens(*backend);
    run_.options.output_path = flags_.output_path;
    run_.options.cancelled = [] { return Interrupted() != 0; };
    run_.options.on_progress = [this](const Task& task, const Variant& variant, int64_t done, int64_t total) {
      bar_.Draw(fmt::format("{} {}", task.info().title, variant.name), done, total);
    };
    run_.options.on_set_aside = [this](const std::string& path, const std::string& set_aside) {
      NoteSetAside(path, set_aside);
    };
    Status status = Measure();
    bar_.Clear();
    SWIFTKV_RETURN_IF_ERROR(std::move(status));
    run_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!flags_.output_path.empty()) SWIFTKV_RETURN_IF_ERROR(WriteFiles());
    return WriteOutput(flags_.output.json ? JsonLine(AllJson()) : TextReport(run_));
  }

 private:
  TaskOptions task_options() const {
    return {
        .protocol = flags_.protocol == "card" ? Protocol::kCard : Protocol::kLeaderboard,
        .truthfulqa_labels = flags_.truthfulqa_labels == "all" ? TruthfulqaLabels::kAll : TruthfulqaLabels::kLeading};
  }
  // Once a run, for the first of its files.
  void NoteSetAside(const std::string& path, const std::string& set_aside) {
    if (flags_.output.quiet || std::exchange(set_aside_noted_, true)) return;
    bar_.Clear();
    WriteNote(fmt::format(
        "swiftkv: {} had responses of an earlier run, which are in {} now, and so on for other tasks and models; "
        "--resume goes on from such responses",
        path, set_aside));
  }
  bool Wants(const char* name) const {
    return std::find(flags_.tasks.begin(), flags_.tasks.end(), name) != flags_.tasks.end();
  }

  // Flags that would have no effect: an error where what they ask for would be missing, else a note.
  Status CheckFlags() const {
    for (const auto& [flag, given] :
         {std::pair("--log-samples", flags_.log_samples), {"--resume", flags_.options.resume}}) {
      if (given && flags_.output_path.empty()) return InvalidInput("{} needs --output-path DIR", flag);
    }
    const auto note = [&](const char* flag, const char* tasks, bool has_no_effect) {
      if (has_no_effect && !flags_.output.quiet) {
        WriteNote(fmt::format("swiftkv: {} has no effect: --tasks does not name {}", flag, tasks));
      }
    };
    note("--text", "perplexity or fidelity", !flags_.texts.empty() && !Wants(kPerplexity) && !Wants(kFidelity));
    note("--window-tokens", kFidelity, flags_.window_tokens != Flags().window_tokens && !Wants(kFidelity));
    note("--text-tokens", kFidelity, flags_.text_tokens != Flags().text_tokens && !Wants(kFidelity));
    return Ok();
  }

  Status LoadTasks() {
    std::vector<std::string> names = flags_.tasks;
    if (names.empty()) {
      names = TaskNames();
      if (task_options().protocol == Protocol::kLeaderboard) std::erase(names, "mmlu_cot");
    }
    for (const std::string& name : names) {
      if (name == kPerplexity || name == kFidelity) continue;
      if (flags_.data.empty()) return InvalidInput("task {} needs --data DIR, the folder of the evaluation sets", name);
      const auto* const of_card = std::find_if(std::begin(kCardNames), std::end(kCardNames),
                                               [&](const auto& entry) { return entry.first == name; });
      const bool is_ours = of_card == std::end(kCardNames);
      SWIFTKV_ASSIGN_OR_RETURN(std::unique_ptr<Task> task,
                               LoadTask(is_ours ? name : of_card->second, task_options(), flags_.data));
      if (!is_ours && task->info().name != name) {
        return InvalidInput("task {} belongs to --protocol card; here it is {}", name, of_card->second);
      }
      SWIFTKV_RETURN_IF_ERROR(CheckAsked(task->info()));
      // A task that was named twice, perhaps by both of its names, counts once.
      const bool is_known = std::any_of(tasks_.begin(), tasks_.end(), [&](const std::unique_ptr<Task>& other) {
        return other->info().name == task->info().name;
      });
      if (!is_known) tasks_.push_back(std::move(task));
    }
    return Ok();
  }

  Status CheckAsked(const TaskInfo& task) const {
    const std::string fixed = fmt::format("--protocol {} fixes how {} is asked", flags_.protocol, task.name);
    if (flags_.num_fewshot.value_or(task.num_fewshot) != task.num_fewshot) {
      return InvalidInput("--num-fewshot {}: {}, with {} shots", *flags_.num_fewshot, fixed, task.num_fewshot);
    }
    if (flags_.apply_chat_template && !task.uses_chat_template) {
      return InvalidInput("--apply-chat-template: {}, without a chat template", fixed);
    }
    if (flags_.fewshot_as_multiturn && task.num_fewshot > 0 && !task.uses_chat_template) {
      return InvalidInput("--fewshot-as-multiturn: {}, with its shots in one text", fixed);
    }
    return Ok();
  }

  Status LoadTexts() {
    if (flags_.texts.empty() && (Wants(kPerplexity) || Wants(kFidelity))) {
      return InvalidInput("perplexity and fidelity need --text FILE");
    }
    for (const std::string& path : flags_.texts) {
      NamedText& text = texts_.emplace_back();
      text.name = std::filesystem::path(path).filename();
      if (std::count_if(texts_.begin(), texts_.end(), [&](const NamedText& other) { return other.name == text.name; }) >
          1) {
        return InvalidInput("--text {}: results are named after the file, and {} is taken already", path, text.name);
      }
      SWIFTKV_ASSIGN_OR_RETURN(text.text, ReadFile(path, kMaxTextBytes));
      SWIFTKV_RETURN_IF_ERROR(CheckPrompt(text.text, path));
    }
    return Ok();
  }

  // What each model's files and results are called: base, an adapter's folder, or swiftkv where the model is one
  // itself.
  Status NameAdapters() {
    if (flags_.adapters.empty()) names_.emplace_back(ModeName(Mode::kStudent));
    for (const std::string& adapter : flags_.adapters) {
      // Absolute, so that "." has a name, too.
      names_.push_back(WithoutTrailingSlash(std::filesystem::absolute(adapter)).filename());
      const auto same = std::count(names_.begin(), names_.end(), names_.back());
      // Files that are set aside end in .previous.
      const bool is_ours = names_.back() == "base" || names_.back() == "settings" || names_.back() == "comparison" ||
                           names_.back().ends_with(".previous");
      if (same > 1 || is_ours) {
        return InvalidInput("--adapter {}: results are named after the folder, and {} is taken already", adapter,
                            names_.back());
      }
    }
    return Ok();
  }

  // Whether --quantization changes weights, so that fidelity needs base in its own precision beside them.
  bool HasOwnReference() const {
    const std::string& quantization = flags_.model.quantization;
    return Wants(kFidelity) && quantization != "auto" && quantization != "none" && quantization != "gguf";
  }
  Status LoadReference() {
    ModelFlags flags = flags_.model;
    flags.quantization = "auto";
    flags.mode = ModeName(Mode::kTeacher);
    SWIFTKV_ASSIGN_OR_RETURN(reference_, flags.Load());
    return Ok();
  }
  // Whether base, as it is run, differs from what fidelity compares with.
  bool BaseIsCompared() const { return run_.options.kv_cache_dtype || HasOwnReference(); }

  // Models to load, one after another.
  size_t model_count() const { return flags_.model.mode == "base" ? 1 : names_.size(); }
  std::string Adapter(size_t i) const { return flags_.adapters.empty() ? "" : flags_.adapters[i]; }

  Status Measure() {
    // A wrong folder is named before the models ahead of it have answered for hours.
    for (size_t i = 0; i < model_count(); ++i) {
      SWIFTKV_RETURN_IF_ERROR(OpenModelFiles(flags_.model.model, Adapter(i)));
    }
    if (!flags_.model.chat_template.empty()) {
      SWIFTKV_ASSIGN_OR_RETURN(chat_template_hash_, HashModel(flags_.model.chat_template));
    }
    SWIFTKV_ASSIGN_OR_RETURN(const std::string path, ResolveModelPath(flags_.model.model));
    SWIFTKV_ASSIGN_OR_RETURN(const std::string hash, HashModel(path));
    if (HasOwnReference()) SWIFTKV_RETURN_IF_ERROR(LoadReference());
    for (size_t i = 0; i < model_count(); ++i) {
      const std::string adapter = Adapter(i);
      SWIFTKV_RETURN_IF_ERROR(LoadModelWith(adapter, /*first=*/i == 0));
      SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Variant> variants, MakeVariants(names_[i], adapter, hash, i == 0));
      SWIFTKV_RETURN_IF_ERROR(MeasureVariants(variants));
    }
    return Ok();
  }

  Status LoadModelWith(const std::string& adapter, bool first) {
    model_ = {};  // two models at once might not fit into memory
    ModelFlags flags = flags_.model;
    flags.adapter = adapter;
    const bool with_base = first || (Wants(kFidelity) && !HasOwnReference());
    if (!with_base) flags.mode = ModeName(Mode::kStudent);
    SWIFTKV_ASSIGN_OR_RETURN(model_, flags.Load(/*both_modes=*/with_base));
    const bool is_compared = model_.weights.config.is_swiftkv() && flags.mode != "base";
    if (Wants(kFidelity) && !is_compared && !BaseIsCompared()) {
      return InvalidInput(
          "fidelity compares SwiftKV with its base model, or base with itself under --quantization or "
          "--kv-cache-dtype; give --adapter, a SwiftKV checkpoint or one of these");
    }
    for (const auto& task : tasks_) {
      if (task->info().uses_chat_template && !model_.text.chat_template) {
        return tl::unexpected<Error>(model_.text.chat_template.error());
      }
    }
    return Ok();
  }

  // Of the model that is loaded; base only of the first.
  Result<std::vector<Variant>> MakeVariants(const std::string& name, const std::string& adapter,
                                            const std::string& base_hash, bool first) {
    std::vector<Variant> variants;
    const auto add = [&](const std::string& of_name, Mode mode, std::string hash) {
      const Quantization quantization =
          ParseQuantization(flags_.model.quantization, flags_.model.dtype, *model_.weights.backend);
      variants.push_back({of_name, &model_.weights, &model_.text, mode, std::move(hash),
                          std::string(QuantizationName(quantization)), chat_template_hash_});
      run_.variants.push_back(Describe(variants.back(), adapter, run_.options));
    };
    if (first && flags_.model.mode != "swiftkv") add(std::string(ModeName(Mode::kTeacher)), Mode::kTeacher, base_hash);
    if (flags_.model.mode == "base" || !model_.weights.config.is_swiftkv()) return variants;
    std::string hash = base_hash;
    if (!adapter.empty()) {
      SWIFTKV_ASSIGN_OR_RETURN(const std::string adapter_hash, HashModel(adapter));
      hash = Sha256(base_hash + adapter_hash);
    }
    add(name, Mode::kStudent, hash);
    return variants;
  }

  Status MeasureVariants(const std::vector<Variant>& variants) {
    run_.tasks.resize(tasks_.size());
    for (size_t t = 0; t < tasks_.size(); ++t) {
      SWIFTKV_ASSIGN_OR_RETURN(TaskResult result, EvaluateTask(*tasks_[t], variants, run_.options));
      std::move(run_.tasks[t].variants.begin(), run_.tasks[t].variants.end(),
                std::inserter(result.variants, result.variants.begin()));
      run_.tasks[t] = std::move(result);
    }
    for (const NamedText& text : texts_) {
      if (Wants(kPerplexity)) SWIFTKV_RETURN_IF_ERROR(MeasurePerplexities(variants, text));
      if (Wants(kFidelity)) SWIFTKV_RETURN_IF_ERROR(MeasureFidelities(variants, text));
    }
    return Ok();
  }

  Status MeasurePerplexities(const std::vector<Variant>& variants, const NamedText& text) {
    for (const Variant& variant : variants) {
      SWIFTKV_ASSIGN_OR_RETURN(run_.perplexities.emplace_back(), MeasurePerplexity(variant, text, run_.options));
    }
    return Ok();
  }

  // Base is compared with itself only where its weights' or cache's precision sets it apart.
  Status MeasureFidelities(const std::vector<Variant>& variants, const NamedText& text) {
    FidelityOptions options{.kv_cache_dtype = run_.options.kv_cache_dtype,
                            .window_tokens = flags_.window_tokens,
                            .max_tokens = flags_.text_tokens,
                            .cancelled = run_.options.cancelled,
                            .on_progress = [this](const std::string& of_text, int64_t done, int64_t total) {
                              bar_.Draw(of_text, done, total);
                            }};
    const Weights& base = HasOwnReference() ? reference_.weights : model_.weights;
    for (const Variant& variant : variants) {
      if (variant.mode == Mode::kTeacher && !BaseIsCompared()) continue;
      options.mode = variant.mode;
      SWIFTKV_ASSIGN_OR_RETURN(run_.fidelities.emplace_back(),
                               MeasureFidelity(base, *variant.weights, *variant.text->tokenizer, text, options));
      run_.fidelities.back().variant = variant.name;
    }
    return Ok();
  }

  nlohmann::ordered_json AllJson() const {
    nlohmann::ordered_json json = {{"settings", SettingsJson(run_)}};
    for (size_t v = 0; v < run_.variants.size(); ++v) json[run_.variants[v].name] = ResultsJson(run_, v);
    json["comparison"] = ComparisonJson(run_);
    return json;
  }

  Status WriteFiles() const {
    const auto path = [&](const std::string& name) { return flags_.output_path + "/" + name; };
    const auto pretty = [](const nlohmann::ordered_json& json) {
      return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    };
    for (size_t v = 0; v < run_.variants.size(); ++v) {
      const std::string& name = run_.variants[v].name;
      SWIFTKV_RETURN_IF_ERROR(WriteFile(path(fmt::format("results_{}.json", name)), pretty(ResultsJson(run_, v))));
      if (!flags_.log_samples) continue;
      for (const TaskResult& result : run_.tasks) {
        SWIFTKV_RETURN_IF_ERROR(WriteFile(path(fmt::format("samples_{}_{}.jsonl", result.task->info().name, name)),
                                          SampleLines(result, v, run_.options)));
      }
    }
    if (!run_.compared().empty()) {
      SWIFTKV_RETURN_IF_ERROR(WriteFile(path("comparison.json"), pretty(ComparisonJson(run_))));
    }
    SWIFTKV_RETURN_IF_ERROR(WriteFile(path("report.md"), MarkdownReport(run_)));
    return WriteFile(path("report.html"), HtmlReport(run_));
  }

  const Flags& flags_;
  ProgressBar bar_;
  LoadedModel model_;
  LoadedModel reference_;           // base in its own precision, where HasOwnReference
  std::string chat_template_hash_;  // of --chat-template; empty: the model's own
  std::vector<std::string> names_;  // of the SwiftKV models, by Flags::adapters
  std::vector<std::unique_ptr<Task>> tasks_;
  std::vector<NamedText> texts_;
  bool set_aside_noted_ = false;
  RunResults run_;
};

}  // namespace

RunCommand AddEvalCommand(CLI::App* program) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program->add_subcommand("eval", "Score a model on the model card's evaluations");
  flags->model.AddModelArgument(command);
  TakesAdapter(
      command->add_option("--adapter", flags->adapters, "SwiftKV adapter to compare with the model; may be repeated")
          ->expected(1)
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll));
  flags->model.AddRunning(command);
  command->get_option("--max-model-len")
      ->description("Tokens of prompt and answer together; 0: 4096, or what the model allows if that is less");
  std::vector<std::string> names = TaskNames();
  names.insert(names.end(), {kPerplexity, kFidelity});
  for (const auto& [card_name, name] : kCardNames) names.emplace_back(card_name);
  command->add_option("--tasks", flags->tasks, "Separated by commas; absent: the seven evaluations")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  command
      ->add_option("--protocol", flags->protocol,
                   "card: as the SwiftKV model card, chat-templated; leaderboard: Open LLM Leaderboard v1, for base "
                   "models")
      ->check(CLI::IsMember({"card", "leaderboard"}))
      ->capture_default_str();
  command
      ->add_option(
          "--truthfulqa-labels", flags->truthfulqa_labels,
          "TruthfulQA's true choices: all that are labelled 1; leading: those before the first 0, as the card's "
          "runs and the leaderboard had it")
      ->check(CLI::IsMember({"all", "leading"}))
      ->capture_default_str();
  command->add_option("--data", flags->data, "Folder of the evaluation sets (docs/eval.md)")->type_name("DIR");
  command->add_option("--text", flags->texts, "Text for perplexity and fidelity; may be repeated")
      ->type_name("FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--text-tokens", flags->text_tokens, "Tokens of each text for fidelity; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--window-tokens", flags->window_tokens, "Tokens of one prompt for fidelity")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--limit", flags->options.limit, "Documents of each task, drawn by --seed; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--seed", flags->options.seed, "Of the draw of documents")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--add-bos-token", flags->options.scorer.add_bos_token,
                    "The tokenizer's special tokens before every prompt (lm-eval's add_bos_token)");
  command->add_option("--max-gen-toks", flags->options.scorer.max_gen_toks, "Tokens of an answer at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command
      ->add_option("--batch-size", flags->options.scorer.max_num_seqs, "Sequences that run at once; auto: the default")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->transform([](const std::string& size) {
        return size.starts_with("auto") ? std::to_string(ScorerOptions().max_num_seqs) : size;
      })
      ->capture_default_str();
  command->add_option("--num-fewshot", flags->num_fewshot, "lm-eval's; an error if the protocol gives other shots");
  command->add_flag("--apply-chat-template", flags->apply_chat_template,
                    "lm-eval's; an error if the protocol does without");
  command->add_flag("--fewshot-as-multiturn", flags->fewshot_as_multiturn,
                    "lm-eval's; an error if the protocol gives shots otherwise");
  command->add_option("--output-path", flags->output_path, "Folder for results, responses and reports")
      ->type_name("DIR");
  command->add_flag("--resume", flags->options.resume, "Go on from the responses in --output-path");
  command->add_flag("--log-samples", flags->log_samples, "Also write every prompt, response and score");
  flags->output.Add(command);
  FinishCommand(command,
                "Examples:\n"
                "  swiftkv eval smollm2-135m --adapter my-adapter --data eval-sets --limit 100\n"
                "  swiftkv eval smollm2-135m --data eval-sets --tasks winogrande,gsm8k --output-path out --resume\n"
                "  swiftkv eval smollm2-135m --adapter one --adapter another --data eval-sets --output-path out\n"
                "  swiftkv eval smollm2-135m --adapter my-adapter --tasks fidelity --text book.txt\n");
  return [flags] { return EvalCommand(*flags).Run(); };
}

}  // namespace swiftkv
