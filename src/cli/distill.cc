// swiftkv distill: a converted model learns from its own teacher, on this machine.
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/file.h"
#include "base/parallel.h"
#include "cli/calibration_text.h"
#include "cli/commands.h"
#include "cli/distill_report.h"
#include "cli/options.h"
#include "cli/report_parts.h"
#include "cli/teacher_text.h"
#include "cli/terminal.h"
#include "distill/loss_curve.h"
#include "distill/progress.h"
#include "distill/run.h"
#include "engine/load.h"
#include "engine/memory.h"
#include "engine/model_costs.h"
#include "model/calibration.h"
#include "model/checkpoint_output.h"
#include "model/model_files.h"
#include "model/swiftkv_transform.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kCalibrationTokens = 32768;

struct Flags {
  ModelFlags model;
  OutputFlags output;
  OutputOptions target;
  std::string recipe = "paper";  // a preset or a file
  std::string format = "auto";
  std::optional<std::string> init;  // absent: calibrated, or what the model holds
  std::vector<std::string> data;
  std::vector<std::string> held_out;
  std::vector<std::string> prompts;
  bool resume = false;
  // Over the recipe, where given:
  std::optional<int64_t> num_key_value_layers, key_value_group_size, max_length, micro_batch_size,
      gradient_accumulation_steps, epochs, train_iters, seed, save_every_n_steps, eval_every_n_steps, eval_tokens;
  std::optional<int64_t> generate, generate_max_tokens, hidden_loss_layer;
  std::optional<double> learning_rate, warmup_ratio, weight_decay, gradient_clipping, logits_loss_temp,
      hidden_loss_mult;
  std::optional<bool> mask_inputs, activation_checkpointing;
  std::optional<std::string> lr_scheduler, hidden_loss_kind;
};

template <class T, class U>
void Override(const std::optional<T>& flag, U* field) {
  if (flag) *field = static_cast<U>(*flag);
}

bool HasPrompts(const std::vector<SourceRecipe>& sources) {
  return std::any_of(sources.begin(), sources.end(), [](const auto& s) { return s.role == SourceRole::kPrompts; });
}

// What the flags say beats the recipe.
void Override(const Flags& flags, Recipe* recipe) {
  for (const std::string& path : flags.data) recipe->data.sources.push_back({.path = path, .held_out = 0.02});
  for (const std::string& path : flags.held_out) {
    recipe->data.sources.push_back({.path = path, .role = SourceRole::kEval});
  }
  for (const std::string& path : flags.prompts) {
    recipe->data.sources.push_back({.path = path, .role = SourceRole::kPrompts});
  }
  Override(flags.generate, &recipe->generate.count);
  Override(flags.generate_max_tokens, &recipe->generate.max_tokens);
  Override(flags.num_key_value_layers, &recipe->model.num_key_value_layers);
  Override(flags.key_value_group_size, &recipe->model.key_value_group_size);
  Override(flags.max_length, &recipe->data.max_length);
  Override(flags.mask_inputs, &recipe->data.mask_inputs);
  Override(flags.micro_batch_size, &recipe->micro_batch_size);
  Override(flags.gradient_accumulation_steps, &recipe->gradient_accumulation_steps);
  Override(flags.gradient_clipping, &recipe->gradient_clipping);
  Override(flags.activation_checkpointing, &recipe->activation_checkpointing);
  Override(flags.epochs, &recipe->epochs);
  if (flags.epochs) recipe->train_iters = 0;  // which would beat them
  Override(flags.train_iters, &recipe->train_iters);
  Override(flags.seed, &recipe->seed);
  Override(flags.save_every_n_steps, &recipe->checkpoint.save_every_n_steps);
  Override(flags.eval_every_n_steps, &recipe->eval.every_n_steps);
  Override(flags.eval_tokens, &recipe->eval.tokens);
  Override(flags.learning_rate, &recipe->optimizer.learning_rate);
  Override(flags.weight_decay, &recipe->optimizer.weight_decay);
  Override(flags.warmup_ratio, &recipe->scheduler.warmup_ratio);
  if (flags.warmup_ratio) recipe->scheduler.warmup_steps.reset();  // which would beat it
  Override(flags.logits_loss_temp, &recipe->logits_loss_temp);
  Override(flags.hidden_loss_mult, &recipe->hidden_loss_mult);
  Override(flags.hidden_loss_layer, &recipe->hidden_loss_layer);
  if (flags.lr_scheduler) {
    recipe->scheduler.kind = *flags.lr_scheduler == "cosine"     ? ScheduleKind::kCosine
                             : *flags.lr_scheduler == "constant" ? ScheduleKind::kConstant
                                                                 : ScheduleKind::kLinear;
  }
  if (flags.hidden_loss_kind) {
    recipe->hidden_loss_kind = *flags.hidden_loss_kind == "mse" ? HiddenLossKind::kMse : HiddenLossKind::kRelative;
  }
  if (flags.model.dtype == "f32") recipe->model.dtype = DType::kF32;
  if (flags.model.dtype == "bf16") recipe->model.dtype = DType::kBF16;
}

Result<Recipe> ReadRecipe(const Flags& flags) {
  Recipe recipe;
  if (flags.recipe == "paper" || flags.recipe == "arctic") {
    SWIFTKV_ASSIGN_OR_RETURN(recipe, PresetRecipe(flags.recipe));
  } else {
    SWIFTKV_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(flags.recipe, kMaxRecipeBytes));
    std::vector<std::string> warnings;
    SWIFTKV_ASSIGN_OR_RETURN(recipe, ParseRecipe(yaml, flags.recipe, &warnings));
    for (const std::string& warning : warnings) WriteNote("swiftkv: " + warning);
  }
  Override(flags, &recipe);
  SWIFTKV_RETURN_IF_ERROR(CheckRecipe(recipe, "the recipe with its flags"));
  if ((flags.hidden_loss_layer || flags.hidden_loss_kind) && recipe.hidden_loss_mult == 0) {
    WriteNote("swiftkv: --hidden-loss-layer and --hidden-loss-kind have no effect while hidden_loss_mult is 0");
  }
  if (recipe.generate.count == 0 && HasPrompts(recipe.data.sources)) {
    if (!flags.prompts.empty()) return InvalidInput("--prompts needs --generate: how many the base model answers");
    WriteNote("swiftkv: generate.count is 0, so the sources of prompts are not used");
  }
  return recipe;
}

// Shows a run on standard error.
class Screen : public RunListener {
 public:
  explicit Screen(bool quiet) : quiet_(quiet) {}
  void Begin(int64_t steps) {
    Progress::Options options{.total_steps = steps, .terminal = isatty(STDERR_FILENO) == 1};
    winsize size{};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) options.columns = size.ws_col;
    progress_.emplace(options, WriteError);
  }
  void OnStep(const StepMetrics& metrics) override {
    if (!quiet_) progress_->Step(metrics);
  }
  void OnHeldOut(const HeldOutMetrics& metrics) override {
    if (quiet_) return;
    progress_->Note(fmt::format("step {}, {}: {}", metrics.step, metrics.source, QualityText(metrics.quality)));
  }
  void OnWarning(const std::string& sentence) override {
    progress_ ? progress_->Note("swiftkv: " + sentence) : WriteNote("swiftkv: " + sentence);
  }
  bool StopAsked() override { return Interrupted() != 0; }
  void Finish() {
    if (!quiet_) progress_->Finish();
  }

 private:
  bool quiet_;
  std::optional<Progress> progress_;
};

// The work of one distillation, step by step.
class Distillation {
 public:
  Distillation(const Flags& flags, Recipe recipe, ModelFiles files, const kernels::Backend* device)
      : flags_(flags), recipe_(std::move(recipe)), files_(std::move(files)), device_(device) {}
  Status Run();

 private:
  Status CheckAsked() const;
  Status FindStudent();
  Status PrepareFolder();
  Status Generate();
  Status OpenData();
  Result<MemoryTensors> Start();
  Status Write(const RunEnd& end);

  // What the student goes on from, an adapter or the base's own SwiftKV tensors; null: a fresh one.
  const TensorSource* trained() const {
    if (files_.adapter != nullptr) return files_.adapter.get();
    return files_.config.is_swiftkv() ? files_.base.get() : nullptr;
  }
  const std::string& TrainedPath() const { return files_.adapter != nullptr ? flags_.model.adapter : files_.origin; }
  std::string folder() const { return WithoutTrailingSlash(flags_.target.folder).string() + ".training"; }

  const Flags& flags_;
  Recipe recipe_;
  ModelFiles files_;
  const kernels::Backend* device_;  // that trains, measures and writes text; calibration runs on CPUs
  ModelConfig student_;
  TextModel text_;
  bool resumes_ = false;
  std::unique_ptr<Dataset> data_;
  std::vector<HeldOutSet> held_out_;
  std::unique_ptr<Trainer> trainer_;
  DistillReport report_;
};

// The teacher's own words become one more source.
Status Distillation::Generate() {
  if (recipe_.generate.count == 0) return Ok();
  std::vector<SourceRecipe> sources = recipe_.data.sources;
  const bool has_prompts = HasPrompts(sources);
  // Where no source was named for it, what is trained on gives the prompts.
  for (size_t i = 0; i < recipe_.data.sources.size() && !has_prompts; ++i) {
    if (sources[i].role != SourceRole::kTrain) continue;
    sources.push_back(sources[i]);
    sources.back().role = SourceRole::kPrompts;
  }
  SWIFTKV_ASSIGN_OR_RETURN(const Weights teacher,
                           LoadWeights(files_.config.Teacher(), *files_.base, nullptr, {.backend = device_}));
  TeacherTextOptions options{.generate = recipe_.generate, .model = files_.origin, .seed = recipe_.seed};
  options.prompt_tokens = std::min(options.prompt_tokens, recipe_.data.max_length);
  const bool shows = !flags_.output.quiet && isatty(STDERR_FILENO) == 1;
  const std::string path = folder() + "/teacher.jsonl";
  SWIFTKV_ASSIGN_OR_RETURN(const TeacherText written,
                           WriteTeacherText(sources, teacher, text_, options, path, [&](const TeacherText& so_far) {
                             if (shows) WriteError("\r" + ProgressLine(so_far));
                             return Interrupted() == 0;
                           }));
  if (!flags_.output.quiet) WriteNote((shows ? "\r" : "") + ProgressLine(written));
  recipe_.data.sources.push_back(
      {.path = path, .weight = recipe_.generate.weight, .held_out = 0.02, .licence = "the base model's own words"});
  return Ok();
}

Status Distillation::OpenData() {
  const ChatTemplate* chat = text_.chat_template ? &*text_.chat_template : nullptr;
  const DatasetOptions options{.seed = recipe_.seed, .epochs = recipe_.train_iters > 0 ? 0 : recipe_.epochs};
  SWIFTKV_ASSIGN_OR_RETURN(data_, Dataset::Open(recipe_.data, options, {text_.tokenizer.get(), chat}));
  for (size_t i = 0; i < data_->sources().size(); ++i) {
    const DatasetSource& source = data_->sources()[i];
    if (source.held_out_rows == 0) continue;
    SWIFTKV_ASSIGN_OR_RETURN(const auto rows, data_->HeldOut(static_cast<int64_t>(i), recipe_.eval.tokens));
    held_out_.push_back({source.name, Documents(rows)});
  }
  const std::vector<std::string> names = SourceNames(recipe_.data);
  for (size_t i = 0; i < names.size(); ++i) {
    const SourceRecipe& source = recipe_.data.sources[i];
    if (source.role == SourceRole::kPrompts && recipe_.generate.count == 0) continue;
    const std::string use = source.role == SourceRole::kEval      ? "measured on alone"
                            : source.role == SourceRole::kPrompts ? "its prompts, answered by the base model"
                            : source.held_out > 0                 ? "trained on, some rows held out"
                                                                  : "trained on";
    report_.sources.push_back({names[i], use, source.licence});
  }
  return Ok();
}

// The folder of checkpoints and metrics; one that another run left behind is not touched unasked.
Status Distillation::PrepareFolder() {
  const Result<std::string> found = FindLatestCheckpoint(folder());
  resumes_ = flags_.resume && found;
  if (flags_.resume && !found) {
    if (found.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(found.error());
    WriteNote(fmt::format("{}: no training checkpoint yet, so the run begins anew", folder()));
  }
  if (found && !flags_.resume && !flags_.target.overwrite) {
    return InvalidInput("{}: an unfinished run: --resume goes on with it, --overwrite begins anew", *found);
  }
  std::error_code error;
  if (found && !flags_.resume) fs::remove_all(folder(), error);
  if (!error) fs::create_directories(folder(), error);
  if (error) return IoError("{}: cannot make the folder: {}", folder(), error.message());
  report_.recipe = ToYaml(recipe_);
  return Ok();
}

// The student before its first update.
Result<MemoryTensors> Distillation::Start() {
  if (trained() != nullptr) {
    report_.start = WithoutTrailingSlash(TrainedPath()).filename().string();
    return ReadStudent(student_, *trained(), DType::kF32);
  }
  const std::string init = flags_.init.value_or("calibrated");
  report_.start = init == "calibrated" ? "a conversion calibrated in closed form"
                  : init == "scaled"   ? "copies of the base's projections, moved between norms"
                                       : "copies of the base's projections, as ArcticTraining starts";
  // A resumed run takes everything from its checkpoint.
  if (init != "calibrated" || resumes_) {
    return InitStudent(student_, *files_.base, init == "scaled" ? Init::kScaled : Init::kReference, DType::kF32);
  }
  if (!flags_.output.quiet) WriteNote("closed-form calibration on the training text");
  std::vector<TokenSequence> sequences;
  int64_t tokens = 0;
  const DatasetState begin = data_->state();
  while (tokens < kCalibrationTokens) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::optional<PackedSequence> row, data_->Next());
    if (!row) break;
    tokens += row->tokens();
    for (TokenSequence& document : Documents({&*row, 1})) sequences.push_back(std::move(document));
  }
  SWIFTKV_RETURN_IF_ERROR(data_->Restore(begin));
  const ModelConfig base = files_.config.Teacher();
  SWIFTKV_RETURN_IF_ERROR(
      CheckWeightsFit(files_.origin, BothModesBytes(base, LoadOptions().dtype), kernels::DefaultBackend().memory()));
  SWIFTKV_ASSIGN_OR_RETURN(const Weights teacher, LoadWeights(base, *files_.base, nullptr, {}));
  SWIFTKV_ASSIGN_OR_RETURN(Calibration fit, Calibrate(teacher, student_, *files_.base, sequences, DType::kF32, {}));
  return std::move(fit.tensors);
}

Status Distillation::Write(const RunEnd& end) {
  const DType dtype = files_.config.dtype;
  SWIFTKV_ASSIGN_OR_RETURN(const Metrics metrics, ReadMetrics(folder() + "/metrics.jsonl"));
  const Result<std::string> drawn = DrawLossCurve(folder(), metrics);
  const std::string no_picture = drawn ? *drawn : drawn.error().message;
  if (!no_picture.empty()) WriteNote("swiftkv: " + no_picture);
  report_.origin = flags_.model.model;
  report_.student = student_;
  report_.options = flags_.target;
  report_.dtype = dtype;
  report_.command = fmt::format("swiftkv distill --recipe recipe.yaml --output {}{}{}",
                                WithoutTrailingSlash(flags_.target.folder).filename().string(),
                                files_.adapter != nullptr ? " --adapter " + report_.start : "",
                                files_.adapter == nullptr && flags_.init ? " --init " + *flags_.init : "");
  report_.steps = end.steps_done;
  report_.tokens = end.tokens;
  report_.seconds = end.seconds;
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  report_.peak_bytes = int64_t{usage.ru_maxrss} * 1024;
  for (const HeldOutMetrics& measured : metrics.held_out) {
    if (measured.step == 0) report_.before.push_back(measured);
  }
  report_.quality = end.held_out;
  report_.loss_curve = no_picture.empty() ? kLossCurveSvg : "";
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<FileToWrite> others, TextFilesToWrite(files_, flags_.target.adapter));
  others.push_back({"recipe.yaml", report_.recipe});
  for (const char* picture : {kLossCurveSvg, kLossCurvePng}) {
    if (!no_picture.empty()) break;
    SWIFTKV_ASSIGN_OR_RETURN(std::string content, ReadFile(folder() + "/" + picture, kMaxPictureBytes));
    others.push_back({picture, std::move(content)});
  }
  SWIFTKV_ASSIGN_OR_RETURN(const MemoryTensors tensors, trainer_->student().Tensors(dtype));
  SWIFTKV_RETURN_IF_ERROR(WriteCheckpoint(files_, student_, tensors, DistillModelCard(report_), others, flags_.target));
  return WriteOutput(flags_.output.json ? DistillReportJson(report_) : DistillReportText(report_));
}

// n and g of a student that is there are its own.
Status Distillation::CheckAsked() const {
  const auto check = [&](std::string_view name, std::optional<int64_t> asked, int64_t own) -> Status {
    if (!asked || *asked == own) return Ok();
    return InvalidInput("{} {}: {}, which is trained further, has {}", name, *asked, TrainedPath(), own);
  };
  SWIFTKV_RETURN_IF_ERROR(
      check("num_key_value_layers", recipe_.model.num_key_value_layers, files_.config.num_key_value_layers));
  return check("key_value_group_size", recipe_.model.key_value_group_size, files_.config.key_value_group_size);
}

// n and g: the adapter's or checkpoint's, else the recipe's.
Status Distillation::FindStudent() {
  student_ = files_.config;
  if (trained() != nullptr) {
    SWIFTKV_RETURN_IF_ERROR(CheckAsked());
  } else {
    const int64_t half = (student_.num_hidden_layers + 1) / 2;
    SWIFTKV_ASSIGN_OR_RETURN(student_, StudentConfig(files_.config, recipe_.model.num_key_value_layers.value_or(half),
                                                     recipe_.model.key_value_group_size.value_or(1)));
  }
  if (recipe_.data.max_length > student_.max_position_embeddings) {
    return InvalidInput("data.max_length {}: {} has {} positions", recipe_.data.max_length, files_.origin,
                        student_.max_position_embeddings);
  }
  recipe_.model.name_or_path = flags_.model.model;
  recipe_.model.num_key_value_layers = student_.num_key_value_layers;
  recipe_.model.key_value_group_size = student_.key_value_group_size;
  return Ok();
}

Status Distillation::Run() {
  SWIFTKV_RETURN_IF_ERROR(FindStudent());
  const int64_t bytes = BothModesBytes(student_, recipe_.model.dtype);
  SWIFTKV_RETURN_IF_ERROR(CheckWeightsFit(files_.origin, bytes, device_->memory()));
  SWIFTKV_RETURN_IF_ERROR(PrepareFolder());
  if (!flags_.output.quiet) WriteNote("training on " + kernels::DeviceText(*device_));
  SWIFTKV_ASSIGN_OR_RETURN(text_, LoadTextModel(files_, std::nullopt));
  SWIFTKV_RETURN_IF_ERROR(Generate());
  SWIFTKV_RETURN_IF_ERROR(OpenData());
  SWIFTKV_ASSIGN_OR_RETURN(const MemoryTensors start, Start());
  TrainerOptions options = TrainerOptionsOf(recipe_);
  options.backend = device_;
  SWIFTKV_ASSIGN_OR_RETURN(trainer_, Trainer::Create(student_, *files_.base, start, options));
  Screen screen(flags_.output.quiet);
  DistillRun run(recipe_, trainer_.get(), data_.get(), held_out_, folder(), &screen);
  SWIFTKV_RETURN_IF_ERROR(run.CountSteps());
  screen.Begin(run.steps());
  if (resumes_) SWIFTKV_RETURN_IF_ERROR(run.Resume());
  // Only now: a recipe that the checkpoint is not of must not take the place of its own.
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder() + "/recipe.yaml", report_.recipe));
  SWIFTKV_ASSIGN_OR_RETURN(const RunEnd end, run.Train());
  screen.Finish();
  if (end.finished) return Write(end);
  if (!flags_.output.quiet) {
    WriteNote(fmt::format("stopped after update {} of {}; the same command with --resume goes on", end.steps_done,
                          run.steps()));
  }
  return MakeError(ErrorCode::kCancelled, "interrupted");
}

Status Distill(const Flags& asked) {
  Flags flags = asked;
  if (flags.model.threads > 0) SetThreads(flags.model.threads);
  SWIFTKV_ASSIGN_OR_RETURN(const kernels::Backend* device, ChooseDevice(flags.model.device));
  SWIFTKV_ASSIGN_OR_RETURN(Recipe recipe, ReadRecipe(flags));
  if (!recipe.model.name_or_path.empty() && flags.model.model.empty()) flags.model.model = recipe.model.name_or_path;
  if (flags.model.model.empty()) flags.model.model = std::string(kDefaultModel);
  if (flags.target.folder.empty()) flags.target.folder = recipe.checkpoint.output_dir;
  if (flags.target.folder.empty()) {
    return InvalidInput("no output folder: neither --output nor the recipe's checkpoint.output_dir names one");
  }
  SWIFTKV_ASSIGN_OR_RETURN(ModelFiles files, OpenModelFiles(flags.model.model, flags.model.adapter));
  if (flags.init && files.adapter != nullptr) {
    WriteNote("swiftkv: --init has no effect with --adapter, which is trained further");
  } else if (flags.init && files.config.is_swiftkv()) {
    WriteNote(fmt::format("swiftkv: --init begins anew: the SwiftKV tensors of {} are not used", files.origin));
    files.config = files.config.Teacher();
  }
  flags.target.adapter = flags.format == "adapter" || (flags.format == "auto" && files.gguf != nullptr);
  SWIFTKV_RETURN_IF_ERROR(CheckOutput(files, flags.target));
  return Distillation(flags, std::move(recipe), std::move(files), device).Run();
}

// --name and --no-name
void AddSwitch(CLI::App* command, const std::vector<std::string>& names, std::optional<bool>* value,
               const std::string& description) {
  std::string flags;
  for (const std::string& name : names) flags += fmt::format("{1}--{0},!--no-{0}", name, flags.empty() ? "" : ",");
  command
      ->add_flag_function(
          flags, [value](int64_t count) { *value = count > 0; }, description)
      ->check(CLI::TypeValidator<bool>());  // what the environment says may be no such word
}

void AddRecipeFlags(CLI::App* command, Flags* flags) {
  command->add_option("--data", flags->data, "Text to train on, besides the recipe's; 2 % of its rows are held out")
      ->type_name("TEXT...");
  command->add_option("--held-out", flags->held_out, "Text to measure on alone")->type_name("TEXT...");
  command->add_option("--generate", flags->generate,
                      "Let the base model answer so many prompts, and train on its answers too");
  command->add_option("--prompts", flags->prompts, "Where those prompts come from; absent: from the training text")
      ->type_name("TEXT...");
  command->add_option("--generate-max-tokens", flags->generate_max_tokens, "Tokens of an answer, at most");
  command->add_option("--num-key-value-layers", flags->num_key_value_layers, "Layers that run for every token");
  command->add_option("--key-value-group-size", flags->key_value_group_size, "Layers above that share one K/V");
  command->add_option("--max-length", flags->max_length, "Tokens of a row");
  AddSwitch(command, {"mask-inputs"}, &flags->mask_inputs,
            "Whether of a conversation only what the assistant says counts in the loss");
  command->add_option("--micro-batch-size,--per-device-train-batch-size", flags->micro_batch_size,
                      "Rows of a forward and backward pass");
  command->add_option("--gradient-accumulation-steps", flags->gradient_accumulation_steps, "Passes of an update");
  AddSwitch(command, {"activation-checkpointing", "gradient-checkpointing"}, &flags->activation_checkpointing,
            "Keep only each layer's input and compute the rest again: less memory, more time");
  command->add_option("--epochs,--num-train-epochs", flags->epochs, "Times that all text is gone through");
  command->add_option("--train-iters,--max-steps", flags->train_iters, "Updates, instead of epochs");
  command->add_option("--learning-rate,--lr", flags->learning_rate, "Of AdamW, at its highest");
  command->add_option("--weight-decay", flags->weight_decay, "Of AdamW");
  command->add_option("--gradient-clipping", flags->gradient_clipping, "The gradient's norm at most; 0: any");
  command->add_option("--warmup-ratio", flags->warmup_ratio, "Share of the updates that it rises in");
  command->add_option("--lr-scheduler,--lr-scheduler-type", flags->lr_scheduler, "How it falls")
      ->check(CLI::IsMember({"linear", "cosine", "constant"}));
  command->add_option("--logits-loss-temp", flags->logits_loss_temp, "T of T² KL(teacher || student)");
  command->add_option("--hidden-loss-mult", flags->hidden_loss_mult, "Weight of the hidden-state loss");
  command->add_option(
      "--hidden-loss-layer", flags->hidden_loss_layer,
      "The layer whose input it compares, as Hugging Face counts hidden_states: -2 is the last layer's");
  command->add_option("--hidden-loss-kind", flags->hidden_loss_kind, "mse: the reference's; relative: free of scale")
      ->check(CLI::IsMember({"mse", "relative"}));
  command->add_option("--save-every-n-steps,--save-steps", flags->save_every_n_steps,
                      "Updates between training checkpoints");
  command->add_option("--eval-every-n-steps", flags->eval_every_n_steps, "Updates between held-out measurements");
  command->add_option("--eval-tokens", flags->eval_tokens, "Held-out tokens of each source");
  command->add_option("-s,--seed", flags->seed, "Of the order of the data");
}

}  // namespace

RunCommand AddDistillCommand(CLI::App* program) {
  auto flags = std::make_shared<Flags>();
  flags->model.model.clear();
  CLI::App* command = program->add_subcommand("distill", "Train a SwiftKV model to answer as its base does");
  command->add_option("model,-m,--model,--model-name-or-path", flags->model.model,
                      "The base model; absent: the recipe's, or smollm2-135m");
  TakesAdapter(
      command->add_option("--adapter", flags->model.adapter, "Start from this adapter instead of a fresh conversion"));
  command->add_option("--recipe", flags->recipe, "paper, arctic, or a YAML file in ArcticTraining's keys")
      ->capture_default_str();
  command
      ->add_option("-o,--output,--output-dir", flags->target.folder,
                   "Folder to write; absent: the recipe's checkpoint.output_dir")
      ->type_name("DIR");
  command->add_flag("--overwrite", flags->target.overwrite, "Replace a model folder that is there");
  command->add_flag("--resume", flags->resume, "Go on from the newest training checkpoint, if there is one");
  command->add_option("--format", flags->format, "checkpoint, adapter, or auto: adapter for a GGUF base")
      ->check(CLI::IsMember({"auto", "checkpoint", "adapter"}))
      ->capture_default_str();
  command
      ->add_option(
          "--init", flags->init,
          "How a fresh student starts: calibrated (the default), scaled or reference; absent: a SwiftKV model or "
          "--adapter is trained further")
      ->check(CLI::IsMember({"calibrated", "scaled", "reference"}));
  AddRecipeFlags(command, flags.get());
  AddDtypeFlag(command, &flags->model.dtype);
  AddDeviceFlag(command, &flags->model.device);
  command->add_option("-t,--threads", flags->model.threads, "Threads; 0: the cores that this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  flags->output.Add(command);
  FinishCommand(command, "Example:\n  swiftkv distill smollm2-135m --data chats.jsonl book.txt -o smollm2-swiftkv\n");
  return [flags] { return Distill(*flags); };
}

}  // namespace swiftkv
