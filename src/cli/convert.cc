// swiftkv convert: a plain model to a SwiftKV checkpoint or adapter, with a closed-form calibration or with the tensors
// of an adapter that is there.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/calibration_text.h"
#include "cli/commands.h"
#include "cli/convert_report.h"
#include "cli/options.h"
#include "cli/report_parts.h"
#include "cli/terminal.h"
#include "engine/load.h"
#include "engine/memory.h"
#include "engine/model_costs.h"
#include "model/calibration.h"
#include "model/checkpoint_output.h"
#include "model/model_files.h"
#include "model/quality.h"
#include "model/swiftkv_transform.h"

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

struct Flags {
  ModelFlags model;
  OutputFlags output;
  OutputOptions target;
  std::string format = "auto";
  std::string quantization = "none";
  std::string layers;  // --num-key-value-layers
  double skip = 0.5;
  double max_kl = 0;
  int64_t group_size = 1;
  std::string init = "calibrated";
  std::vector<std::string> calibrate;
  int64_t calibration_tokens = 32768;
  std::vector<std::string> held_out;
  int64_t held_out_tokens = 4096;
  std::string token_weights = "auto";
  double lambda = 1e-4;
  uint64_t seed = 0;
};

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Status CheckInterrupt() {
  if (Interrupted() != 0) return MakeError(ErrorCode::kCancelled, "interrupted");
  return Ok();
}

// The work of one conversion, step by step.
class Conversion {
 public:
  // `files` with the teacher's config; `adapter`: that of their adapter, or absent.
  Conversion(const Flags& flags, ModelFiles files, std::optional<ModelConfig> adapter)
      : flags_(flags), files_(std::move(files)), adapter_(std::move(adapter)) {}

  Result<ConvertReport> Run();

 private:
  // The student that the flags ask for; nullopt: the one that FindLayers finds.
  Result<std::optional<ModelConfig>> AskedStudent() const;
  Result<ModelConfig> StudentOf(int64_t num_key_value_layers) const;
  // All text but the base model's own, which it writes once its weights are loaded.
  Status ReadText();
  Status WriteText();
  Status FindLayers();
  // Fits (or initialises) a student, loads it beside its teacher and measures it.
  Status MakeStudent(const ModelConfig& student);
  Status Fit(const ModelConfig& student);
  Result<int64_t> AskedLayers() const;
  CalibrationTextOptions TextOptions() const;
  bool WritesOwnText() const { return flags_.calibrate.empty() && flags_.init == "calibrated" && !adapter_; }
  Status Progress(int64_t done, int64_t total) const;

  const Flags& flags_;
  ModelFiles files_;
  std::optional<ModelConfig> adapter_;
  TextModel text_model_;
  Weights weights_;  // always holds the teacher; the student too once there is one
  CalibrationText text_;
  std::vector<HeldOutText> held_out_;
  std::optional<MemoryTensors> tensors_;
  ConvertReport report_;
};

Status Conversion::Progress(int64_t done, int64_t total) const {
  if (!flags_.output.quiet && isatty(STDERR_FILENO) == 1) {
    fmt::print(stderr, "\rcalibration: {} of {} tokens{}", done, total, done == total ? "\n" : "");
  }
  return CheckInterrupt();
}

Result<int64_t> Conversion::AskedLayers() const {
  const int64_t layers = files_.config.num_hidden_layers;
  if (flags_.layers.empty()) {
    // The nearest number of skipped layers that g divides.
    const auto groups =
        std::llround(static_cast<double>(layers) * flags_.skip / static_cast<double>(flags_.group_size));
    return layers - groups * flags_.group_size;
  }
  int64_t asked = 0;
  const char* const end = flags_.layers.data() + flags_.layers.size();
  if (const auto parsed = std::from_chars(flags_.layers.data(), end, asked);
      parsed.ec != std::errc() || parsed.ptr != end) {
    return InvalidInput("--num-key-value-layers {}: it must be a number of layers or auto", flags_.layers);
  }
  return asked;
}

Result<ModelConfig> Conversion::StudentOf(int64_t num_key_value_layers) const {
  SWIFTKV_ASSIGN_OR_RETURN(ModelConfig student, StudentConfig(files_.config, num_key_value_layers, flags_.group_size));
  if (!student.is_swiftkv()) {
    return InvalidInput("num_key_value_layers {} is the number of layers: there is nothing to skip",
                        num_key_value_layers);
  }
  return student;
}

Result<std::optional<ModelConfig>> Conversion::AskedStudent() const {
  if (adapter_) return adapter_;
  if (flags_.layers == "auto") {
    if (files_.config.num_hidden_layers > flags_.group_size) return std::nullopt;
    return InvalidInput("key_value_group_size {} leaves no layer to skip", flags_.group_size);
  }
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t layers, AskedLayers());
  SWIFTKV_ASSIGN_OR_RETURN(ModelConfig student, StudentOf(layers));
  return std::optional<ModelConfig>(std::move(student));
}

CalibrationTextOptions Conversion::TextOptions() const {
  CalibrationTextOptions options{.tokens = flags_.calibration_tokens, .seed = flags_.seed};
  options.sequence_length = std::min(options.sequence_length, files_.config.max_position_embeddings);
  options.needs_held_out = flags_.held_out.empty();
  return options;
}

Status Conversion::ReadText() {
  const Clock::time_point start = Clock::now();
  CalibrationTextOptions options = TextOptions();
  SWIFTKV_ASSIGN_OR_RETURN(text_model_, LoadTextModel(files_, std::nullopt));
  if (!flags_.calibrate.empty()) {
    SWIFTKV_ASSIGN_OR_RETURN(text_, ReadCalibrationText(flags_.calibrate, text_model_, options));
  } else if (!WritesOwnText()) {
    SWIFTKV_ASSIGN_OR_RETURN(text_, BuiltInText(text_model_, options));
  }
  if (!flags_.held_out.empty()) {
    options.tokens = flags_.held_out_tokens;
    SWIFTKV_ASSIGN_OR_RETURN(held_out_, ReadHeldOutText(flags_.held_out, text_model_, options));
  }
  report_.text_seconds = SecondsSince(start);
  return Ok();
}

Status Conversion::WriteText() {
  const Clock::time_point start = Clock::now();
  if (WritesOwnText()) {
    if (!flags_.output.quiet) WriteNote("the base model writes calibration text");
    SWIFTKV_ASSIGN_OR_RETURN(text_,
                             WriteOwnText(weights_, text_model_, TextOptions(), [] { return Interrupted() != 0; }));
  }
  if (held_out_.empty()) held_out_ = {std::move(text_.held_out)};
  report_.text_seconds += SecondsSince(start);
  return Ok();
}

Status Conversion::Fit(const ModelConfig& student) {
  const DType dtype = files_.config.dtype;
  const Clock::time_point start = Clock::now();
  if (adapter_) {
    SWIFTKV_ASSIGN_OR_RETURN(tensors_, ReadStudent(student, *files_.adapter, dtype));
    return Ok();
  }
  if (flags_.init != "calibrated") {
    const Init init = flags_.init == "scaled" ? Init::kScaled : Init::kReference;
    SWIFTKV_ASSIGN_OR_RETURN(tensors_, InitStudent(student, *files_.base, init, dtype));
    return Ok();
  }
  CalibrationOptions options;
  options.lambda = flags_.lambda;
  if (flags_.token_weights == "uniform") options.token_weights = TokenWeights::kUniform;
  if (flags_.token_weights == "layer") options.token_weights = TokenWeights::kLayer;
  if (flags_.token_weights == "head") options.token_weights = TokenWeights::kHead;
  options.progress = [this](int64_t done, int64_t total) { return Progress(done, total); };
  SWIFTKV_ASSIGN_OR_RETURN(Calibration fit, Calibrate(weights_, student, *files_.base, text_.fit, dtype, options));
  tensors_ = std::move(fit.tensors);
  report_.fits = std::move(fit.fits);
  report_.token_weights = fit.token_weights;
  report_.calibration_tokens = fit.tokens;
  report_.calibration_seconds += SecondsSince(start);
  return Ok();
}

Status Conversion::MakeStudent(const ModelConfig& student) {
  report_.student = student;
  SWIFTKV_RETURN_IF_ERROR(Fit(student));
  const Clock::time_point start = Clock::now();
  const LoadOptions load{.dtype = weights_.dtype, .teacher = true, .student = true};
  weights_ = Weights();  // one copy at a time
  SWIFTKV_ASSIGN_OR_RETURN(weights_, LoadWeights(report_.student, *files_.base, &*tensors_, load));
  report_.kinds.clear();
  std::vector<Quality> qualities;
  for (const HeldOutText& text : held_out_) {
    SWIFTKV_RETURN_IF_ERROR(CheckInterrupt());
    SWIFTKV_ASSIGN_OR_RETURN(const Quality quality, MeasureQuality(weights_, text.sequences));
    report_.kinds.push_back({text.name, quality});
    qualities.push_back(quality);
  }
  report_.quality = MeanQuality(qualities);
  report_.measure_seconds += SecondsSince(start);
  return CheckInterrupt();
}

// The smallest n within --max-kl. The KL falls with n, so a bisection finds it.
Status Conversion::FindLayers() {
  const int64_t layers = files_.config.num_hidden_layers;
  const int64_t step = flags_.group_size;
  int64_t low = 1;  // groups skipped
  int64_t high = (layers - 1) / step;
  int64_t best = 0;
  while (low <= high) {
    const int64_t groups = (low + high + 1) / 2;
    SWIFTKV_ASSIGN_OR_RETURN(const ModelConfig student, StudentOf(layers - groups * step));
    SWIFTKV_RETURN_IF_ERROR(MakeStudent(student));
    report_.tried.push_back({layers - groups * step, report_.quality});
    if (!flags_.output.quiet) {
      WriteNote(fmt::format("n = {}: held-out KL {:.4f}", layers - groups * step, report_.quality.kl));
    }
    if (report_.quality.kl <= flags_.max_kl) {
      best = groups;
      low = groups + 1;
    } else {
      high = groups - 1;
    }
  }
  if (best == 0) {
    return InvalidInput("no num_key_value_layers below {} stays within --max-kl {} (the closest has KL {:.4f})", layers,
                        flags_.max_kl, report_.quality.kl);
  }
  if (report_.student.num_key_value_layers == layers - best * step) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const ModelConfig student, StudentOf(layers - best * step));
  return MakeStudent(student);
}

Result<ConvertReport> Conversion::Run() {
  const Clock::time_point start = Clock::now();
  report_.origin = flags_.model.model;
  report_.options = flags_.target;
  report_.init = adapter_ ? "adapter" : flags_.init;
  report_.adapter = flags_.model.adapter;
  report_.lambda = flags_.lambda;
  // What the flags ask for and name is looked at before the work that takes long.
  SWIFTKV_ASSIGN_OR_RETURN(const std::optional<ModelConfig> student, AskedStudent());
  const DType dtype = flags_.model.dtype == "f32" ? DType::kF32 : DType::kBF16;
  SWIFTKV_RETURN_IF_ERROR(CheckWeightsFit(files_.origin, BothModesBytes(student.value_or(files_.config), dtype),
                                          kernels::DefaultBackend().memory()));
  SWIFTKV_RETURN_IF_ERROR(ReadText());
  SWIFTKV_ASSIGN_OR_RETURN(weights_, LoadWeights(files_.config, *files_.base, nullptr, {.dtype = dtype}));
  SWIFTKV_RETURN_IF_ERROR(WriteText());
  report_.text = text_.description;
  SWIFTKV_RETURN_IF_ERROR(student ? MakeStudent(*student) : FindLayers());
  report_.dtype = tensors_->dtype();
  report_.seconds = SecondsSince(start);
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  report_.peak_bytes = int64_t{usage.ru_maxrss} * 1024;
  weights_ = Weights();
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<FileToWrite> text_files, TextFilesToWrite(files_, flags_.target.adapter));
  SWIFTKV_RETURN_IF_ERROR(
      WriteCheckpoint(files_, report_.student, *tensors_, ModelCard(report_), text_files, flags_.target));
  report_.seconds = SecondsSince(start);
  return report_;
}

Status Convert(const Flags& asked) {
  Flags flags = asked;
  UseThreads(flags.model.threads);
  SWIFTKV_RETURN_IF_ERROR(kernels::CheckBackendChoice());
  if (flags.layers == "auto" && !(flags.max_kl > 0)) {
    return InvalidInput("--num-key-value-layers auto needs --max-kl, the distance to stay within");
  }
  if (flags.layers != "auto" && flags.max_kl > 0) {
    return InvalidInput("--max-kl needs --num-key-value-layers auto, the number of layers that it chooses");
  }
  if (flags.init != "calibrated" && flags.layers == "auto") {
    return InvalidInput("--num-key-value-layers auto needs --init calibrated");
  }
  SWIFTKV_ASSIGN_OR_RETURN(ModelFiles files, OpenModelFiles(flags.model.model, flags.model.adapter));
  // A converted checkpoint that kept its teacher is converted anew from it.
  const std::string last_key = AttentionTensorName(files.config.num_hidden_layers - 1, "k_proj.weight");
  if (files.base->Find(last_key) == nullptr) {
    return InvalidInput("{}: has no {}: the original projections were left out, so there is no teacher to convert",
                        files.origin, last_key);
  }
  std::optional<ModelConfig> adapter;
  if (files.adapter != nullptr) adapter = files.config;
  files.config = files.config.Teacher();
  if (flags.quantization == "fp8") flags.target.quantization = CompressedFormat::kFp8;
  if (flags.quantization == "int8") flags.target.quantization = CompressedFormat::kInt8;
  if (flags.quantization == "int4") flags.target.quantization = CompressedFormat::kInt4;
  flags.target.adapter = flags.format == "adapter" || (flags.format == "auto" && files.gguf != nullptr);
  SWIFTKV_RETURN_IF_ERROR(CheckOutput(files, flags.target));
  Conversion conversion(flags, std::move(files), std::move(adapter));
  SWIFTKV_ASSIGN_OR_RETURN(const ConvertReport report, conversion.Run());
  return WriteOutput(flags.output.json ? ReportJson(report) : ReportText(report));
}

}  // namespace

RunCommand AddConvertCommand(CLI::App* program) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program->add_subcommand("convert", "Rewire a model to SwiftKV, calibrated in closed form");
  command
      ->add_option("model,-m,--model", flags->model.model,
                   "Hugging Face folder, .gguf file, org/name in the hub cache, or smollm2-135m")
      ->capture_default_str();
  command->add_option("-o,--output", flags->target.folder, "Folder to write")->type_name("DIR")->required();
  command
      ->add_option("--format", flags->format,
                   "checkpoint: the official layout, base included; adapter: the SwiftKV tensors alone, for --adapter; "
                   "auto: adapter for a GGUF base, else checkpoint")
      ->check(CLI::IsMember({"auto", "checkpoint", "adapter"}))
      ->capture_default_str();
  command
      ->add_option(
          "--quantization", flags->quantization,
          "Of the projections' weights that are written, in compressed-tensors' layout: fp8 or int8 (a scale for each "
          "output feature), int4 (a scale for each 32 input features)")
      ->check(CLI::IsMember({"none", "fp8", "int8", "int4"}))
      ->capture_default_str();
  command->add_flag("--overwrite", flags->target.overwrite, "Replace a model folder that is there");
  auto* adapter = command->add_option("--adapter", flags->model.adapter,
                                      "SwiftKV adapter of this model: its tensors are written, and nothing is fitted");
  TakesAdapter(adapter);
  auto* layers = command
                     ->add_option("--num-key-value-layers", flags->layers,
                                  "Layers that run for every token, or auto: the fewest within --max-kl")
                     ->excludes(adapter);
  command->add_option("--skip", flags->skip, "Share of the layers that prompt tokens skip")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->excludes(layers)
      ->excludes(adapter);
  command->add_option("--max-kl", flags->max_kl, "With auto: held-out KL(base || SwiftKV) that is allowed, in nats")
      ->check(CLI::PositiveNumber);
  command->add_option("--key-value-group-size", flags->group_size, "Layers above that share one K/V (AcrossKV)")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str()
      ->excludes(adapter);
  command
      ->add_option(
          "--init", flags->init,
          "calibrated: a fit to the model's own keys and values; scaled: W diag(gamma_j / gamma_n); reference: "
          "copies, as ArcticTraining starts")
      ->check(CLI::IsMember({"calibrated", "scaled", "reference"}))
      ->capture_default_str()
      ->excludes(adapter);
  command
      ->add_option(
          "--calibrate", flags->calibrate,
          "Text files, or .jsonl files with \"messages\" or \"text\" in each line; absent: text that the model "
          "writes itself, and some novels")
      ->type_name("TEXT...")
      ->excludes(adapter);
  command->add_option("--calibration-tokens", flags->calibration_tokens, "Tokens of text, a tenth of them held out")
      ->check(CLI::Range(int64_t{64}, int64_t{1} << 27))
      ->capture_default_str();
  auto* held_out = command
                       ->add_option("--held-out", flags->held_out,
                                    "Files to measure on, each by itself, instead of a tenth of the calibration text")
                       ->type_name("TEXT...");
  command->add_option("--held-out-tokens", flags->held_out_tokens, "Tokens of each of them")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 27))
      ->capture_default_str()
      ->needs(held_out);
  command
      ->add_option("--token-weights", flags->token_weights,
                   "What a token's error counts: the attention it gets in each KV head or layer, or uniform")
      ->check(CLI::IsMember({"auto", "head", "layer", "uniform"}))
      ->capture_default_str();
  command->add_option("--ridge", flags->lambda, "Penalty of the fit, relative to the mean square of its inputs")
      ->check(CLI::Range(1e-12, 1e3))
      ->capture_default_str();
  command->add_option("-s,--seed", flags->seed, "Of the order of documents and of the text that the model writes")
      ->capture_default_str();
  AddDtypeFlag(command, &flags->model.dtype)
      ->description("Type that the model runs in while it is fitted: bf16 (bfloat16), f32 (float32) or auto");
  command->add_option("-t,--threads", flags->model.threads, "Threads; 0: the cores that this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  flags->output.Add(command);
  FinishCommand(
      command,
      "Examples:\n"
      "  swiftkv convert smollm2-135m --skip 0.5 --output smollm2-swiftkv\n"
      "  swiftkv convert ./Llama-3.2-1B-Instruct -o out --calibrate chats.jsonl report.txt\n"
      "  swiftkv convert smollm2-135m -o out --num-key-value-layers auto --max-kl 0.1\n"
      "  swiftkv convert smollm2-135m --adapter models/smollm2-135m-swiftkv-50 --format checkpoint -o merged\n"
      "  swiftkv generate smollm2-135m --adapter out --prompt \"Once upon a time\"\n");
  return [flags] { return Convert(*flags); };
}

}  // namespace swiftkv
