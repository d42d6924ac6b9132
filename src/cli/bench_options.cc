#include "cli/bench_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "base/printable.h"
#include "cli/options.h"
#include "cli/terminal.h"

namespace swiftkv {
namespace {

constexpr size_t kMaxListEntries = 1000;

template <class Number>
bool ParseWhole(std::string_view text, Number* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

// Each entry of a comma-separated list through `parse`, which returns whether it was one.
template <class T, class Parse>
Result<std::vector<T>> ParseList(std::string_view flag, std::string_view text, const char* what, const Parse& parse) {
  std::vector<T> values;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    T value = {};
    if (!parse(text.substr(begin, comma - begin), &value) || values.size() == kMaxListEntries) {
      return InvalidInput("{} {}: it must be a comma-separated list of {}, at most {} of them", flag, Printable(text),
                          what, kMaxListEntries);
    }
    values.push_back(value);
    begin = comma + 1;
  }
  return values;
}

}  // namespace

void MeasuredModelFlags::Add(CLI::App* command) {
  command
      ->add_option("model,-m,--model", model,
                   "Hugging Face folder, .gguf file, org/name in the hub cache, or smollm2-135m")
      ->capture_default_str();
  TakesAdapter(command->add_option("--adapter", adapter, "SwiftKV adapter to apply to the model"));
  command
      ->add_option("--load-format", load_format, "dummy: random weights in the shape of --config, instead of a model")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str();
  command
      ->add_option("--config", config, "config.json of the shape for --load-format dummy (src/bench/configs has some)")
      ->type_name("FILE");
  command
      ->add_option("--num-key-value-layers", num_key_value_layers,
                   "Of random weights: layers that all prompt tokens run; 0: the config's, or half of the layers")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--key-value-group-size", key_value_group_size,
                   "Of random weights: later layers that share one K/V; 0: the config's, or 1")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--mode", mode, "What to measure: base, swiftkv, or auto: both where the model has both")
      ->check(CLI::IsMember({"auto", "base", "swiftkv"}))
      ->capture_default_str();
  AddDtypeFlag(command, &dtype);
  AddQuantizationFlag(command, &quantization);
  AddDeviceFlag(command, &device);
}

Result<MeasuredModel> MeasuredModelFlags::Load() const {
  const bool dummy = load_format == "dummy";
  if (dummy && config.empty()) return InvalidInput("--load-format dummy needs --config FILE");
  if (dummy && !adapter.empty()) return InvalidInput("--load-format dummy and --adapter exclude each other");
  if (!dummy && !config.empty()) return InvalidInput("--config is for --load-format dummy");
  if (!dummy && (num_key_value_layers > 0 || key_value_group_size > 0)) {
    return InvalidInput("--num-key-value-layers and --key-value-group-size are for --load-format dummy");
  }
  MeasuredModelOptions options{.model = model,
                               .adapter = adapter,
                               .config_file = config,
                               .num_key_value_layers = num_key_value_layers,
                               .key_value_group_size = key_value_group_size,
                               .dtype = dtype == "f32" ? DType::kF32 : DType::kBF16};
  if (mode != "auto") options.mode = mode == "base" ? Mode::kTeacher : Mode::kStudent;
  SWIFTKV_ASSIGN_OR_RETURN(options.backend, ChooseDevice(device));
  options.quantization = ParseQuantization(quantization, dtype, *options.backend);
  SWIFTKV_ASSIGN_OR_RETURN(MeasuredModel measured, LoadMeasuredModel(options));
  measured.quantization = QuantizationName(options.quantization);
  return measured;
}

void AddCacheFlag(CLI::App* command, std::optional<DType>* kv_cache_dtype) {
  CheckCacheType(command->add_option_function<std::string>(
      "--kv-cache-dtype", [kv_cache_dtype](const std::string& name) { *kv_cache_dtype = ParseCacheType(name); },
      "auto: the type of --dtype; int8 (CPUs) or fp8 (GPUs): half the memory of bf16 (bfloat16)"));
}

void AddEngineFlags(CLI::App* command, EngineLoadOptions* engine) {
  command
      ->add_option("--max-num-batched-tokens", engine->scheduler.max_num_batched_tokens,
                   "Tokens of one step: longer prompts run in chunks")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--max-num-seqs", engine->scheduler.max_num_seqs, "Requests that run at once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  AddCacheFlag(command, &engine->kv_cache_dtype);
  command
      ->add_option("--kv-cache-tokens", engine->kv_cache_tokens,
                   "Tokens that the K/V cache holds; 0: what the requests need, within half the memory available")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

Result<std::vector<int64_t>> ParseNumbers(std::string_view flag, std::string_view text, int64_t least) {
  const std::string what = fmt::format("whole numbers from {}", least);
  return ParseList<int64_t>(flag, text, what.c_str(), [&](std::string_view entry, int64_t* value) {
    return ParseWhole(entry, value) && *value >= least;
  });
}

Result<std::vector<double>> ParseRates(std::string_view flag, std::string_view text) {
  return ParseList<double>(flag, text, "numbers above 0, or inf", [](std::string_view entry, double* value) {
    return ParseWhole(entry, value) && *value > 0;
  });
}

Result<std::vector<double>> ParsePercents(std::string_view flag, std::string_view text) {
  return ParseList<double>(flag, text, "numbers from 0 to 100", [](std::string_view entry, double* value) {
    return ParseWhole(entry, value) && *value >= 0 && *value <= 100;
  });
}

ProgressLine::ProgressLine(std::string what, bool quiet)
    : what_(std::move(what)), shows_(!quiet && isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (shows_) WriteError("\r\x1b[K");
}

void ProgressLine::Show(std::string_view state) {
  if (shows_) WriteError(fmt::format("\r\x1b[K{} {}", what_, state));
}

}  // namespace swiftkv
