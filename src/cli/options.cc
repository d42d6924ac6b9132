#include "cli/options.h"

#include <spdlog/spdlog.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <chrono>
#include <map>
#include <utility>
#include <vector>

#include "base/parallel.h"
#include "engine/utf8.h"
#include "model/model_files.h"

namespace swiftkv {
namespace {

std::string EnvironmentName(const std::string& flag) {
  std::string name = "SWIFTKV_" + flag;
  for (char& letter : name) letter = letter == '-' ? '_' : static_cast<char>(std::toupper(letter));
  return name;
}

// "ID=VALUE"
Result<std::pair<int32_t, float>> ParseLogitBias(const std::string& text) {
  std::pair<int32_t, float> bias;
  const char* const end = text.data() + text.size();
  const auto id = std::from_chars(text.data(), end, bias.first);
  if (id.ec == std::errc() && id.ptr != end && *id.ptr == '=') {
    const auto value = std::from_chars(id.ptr + 1, end, bias.second);
    if (value.ec == std::errc() && value.ptr == end) return bias;
  }
  return InvalidInput("--logit-bias {}: it must be ID=VALUE, a token id and a number, such as 1234=-100", text);
}

// As --quantization spells them; every one is here.
constexpr std::array<std::pair<std::string_view, Quantization>, 7> kQuantizationNames = {
    {{"none", Quantization::kNone},
     {"gguf", Quantization::kStored},
     {"q8_0", Quantization::kQ8_0},
     {"q4_1", Quantization::kQ4_1},
     {"int8", Quantization::kInt8},
     {"int4", Quantization::kInt4},
     {"fp8", Quantization::kFp8}}};

// What other tools call a value, in our spelling.
using OtherNames = std::map<std::string, std::string, std::less<>>;

void Translate(const OtherNames& names, CLI::Option* option) {
  option->transform([names](const std::string& value) {
    const auto found = names.find(value);
    return found == names.end() ? value : found->second;
  });
}

}  // namespace

CLI::Option* MayBeRepeated(CLI::Option* option) {
  // Where more values may follow a flag, CLI11 takes "[a,b]" for two of them.
  return option->expected(1)->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

CLI::Option* AddDtypeFlag(CLI::App* command, std::string* dtype) {
  CLI::Option* const option = command->add_option(
      "--dtype", *dtype, "Type of weights and activations: bf16 (bfloat16), f32 (float32) or auto (bf16)");
  option->check(CLI::IsMember({"auto", "bf16", "f32"}))->capture_default_str();
  Translate({{"bfloat16", "bf16"}, {"float32", "f32"}, {"float", "f32"}}, option);
  return option;
}

void AddQuantizationFlag(CLI::App* command, std::string* quantization) {
  std::vector<std::string> names = {"auto"};
  for (const auto& [name, value] : kQuantizationNames) names.emplace_back(name);
  command
      ->add_option(
          "--quantization", *quantization,
          "Weights in memory: none (as --dtype says); gguf (what a file has in 8 bits or less keeps its "
          "bits: the same answers from less memory; an adapter's matrices for such ones in Q8_0); q8_0 or q4_1 (made "
          "so); int8 (products in int8 too: the fastest with prompts); int4 (the file's 4-bit weights times int8 "
          "inputs: the fastest with answers); fp8 (E4M3 weights and inputs, on a GPU); auto: "
          "gguf with bf16 on CPUs, else none")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
}

Quantization ParseQuantization(const std::string& quantization, const std::string& dtype,
                               const kernels::Backend& backend) {
  for (const auto& [name, value] : kQuantizationNames) {
    if (quantization == name) return value;
  }
  return dtype != "f32" && backend.memory().is_host() ? Quantization::kStored : Quantization::kNone;  // auto
}

std::string_view QuantizationName(Quantization quantization) {
  const auto* const named = std::find_if(kQuantizationNames.begin(), kQuantizationNames.end(),
                                         [&](const auto& entry) { return entry.second == quantization; });
  return named->first;
}

void AddDeviceFlag(CLI::App* command, std::string* device) {
  command
      ->add_option("--device", *device, "Where the model runs: cpu, cuda, or auto (cuda where there is a GPU for it)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
}

Result<const kernels::Backend*> ChooseDevice(const std::string& device) {
  SWIFTKV_RETURN_IF_ERROR(kernels::CheckBackendChoice());
  if (device == "cpu") return &kernels::DefaultBackend();
  Result<const kernels::Backend*> cuda = kernels::CudaBackend();
  if (device == "cuda" || cuda) return cuda;
  // A machine without a GPU needs no word; one whose GPU can't be used does.
  if (cuda.error().code != ErrorCode::kNotFound) spdlog::warn("--device auto is the CPU: {}", cuda.error().message);
  return &kernels::DefaultBackend();
}

void CheckCacheType(CLI::Option* option) {
  option->check(CLI::IsMember({"auto", "bf16", "int8", "fp8"}));
  Translate({{"bfloat16", "bf16"}, {"fp8_e4m3", "fp8"}}, option);
}

std::optional<DType> ParseCacheType(std::string_view name) {
  if (name == "bf16") return DType::kBF16;
  if (name == "int8") return DType::kI8;
  if (name == "fp8") return DType::kF8E4M3;
  return std::nullopt;
}

void TakesAdapter(CLI::Option* option) {
  option->type_name("DIR|NAME")->transform([](const std::string& adapter) {
    const Result<std::string> path = ResolveAdapterPath(adapter);
    if (!path) throw CLI::ValidationError(path.error().message);
    return *path;
  });
}

void ModelFlags::AddModelArgument(CLI::App* command) {
  command
      ->add_option("model,-m,--model", model,
                   "Hugging Face folder, .gguf file, org/name in the hub cache, or smollm2-135m")
      ->capture_default_str();
}

void ModelFlags::AddModel(CLI::App* command) {
  AddModelArgument(command);
  TakesAdapter(command->add_option("--adapter", adapter, "SwiftKV adapter to apply to the model"));
}

void ModelFlags::AddAll(CLI::App* command) {
  AddModel(command);
  AddRunning(command);
}

void ModelFlags::AddRunning(CLI::App* command) {
  command
      ->add_option("--mode", mode,
                   "base: the unconverted model; swiftkv: prompt tokens skip the later layers; auto: swiftkv where the "
                   "checkpoint has it")
      ->check(CLI::IsMember({"auto", "base", "swiftkv"}))
      ->capture_default_str();
  AddDtypeFlag(command, &dtype);
  AddQuantizationFlag(command, &quantization);
  CheckCacheType(command->add_option(
      "--kv-cache-dtype", kv_cache_dtype,
      "Type of the K/V cache: int8 (CPUs), fp8 (GPUs), bf16 (bfloat16), or auto (that of --dtype)"));
  AddDeviceFlag(command, &device);
  command->add_option("--chat-template", chat_template, "Jinja file to use instead of the model's own chat template")
      ->type_name("FILE");
  command
      ->add_option("-c,--max-model-len", max_model_len,
                   "Tokens of prompt and answer together; 0: the model's, or what half of the free memory holds")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--max-num-batched-tokens", max_num_batched_tokens,
                   "Tokens of one step: longer prompts run in chunks; 0: 2048, on a GPU 8192")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--log-level", log_level, "Notes on standard error: debug, info, warning, error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  command->add_option("-t,--threads", threads, "Threads; 0: the cores that this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

Result<LoadedModel> ModelFlags::Load(bool both_modes) const {
  spdlog::set_level(spdlog::level::from_str(log_level));
  UseThreads(threads);
  LoadModelOptions options{.model = model, .adapter = adapter, .both_modes = both_modes};
  if (mode != "auto") options.mode = mode == "base" ? Mode::kTeacher : Mode::kStudent;
  if (dtype != "auto") options.dtype = dtype == "f32" ? DType::kF32 : DType::kBF16;
  SWIFTKV_ASSIGN_OR_RETURN(options.backend, ChooseDevice(device));
  options.quantization = ParseQuantization(quantization, dtype, *options.backend);
  if (!chat_template.empty()) options.chat_template_file = chat_template;
  const auto start = std::chrono::steady_clock::now();
  SWIFTKV_ASSIGN_OR_RETURN(LoadedModel loaded, LoadModel(options));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const ModelConfig& config = loaded.weights.config;
  spdlog::info("loaded {} in {:.2f} s: {} layers, mode {}, n = {}, g = {}, {}, {}, {} threads", loaded.origin,
               seconds.count(), config.num_hidden_layers, ModeName(loaded.mode), config.num_key_value_layers,
               config.key_value_group_size, Name(loaded.weights.dtype), loaded.weights.backend->name(), Threads());
  return loaded;
}

void UseThreads(int threads) {
  if (threads <= 0) return;
  const int cores = AvailableCores();
  if (threads > cores) {
    spdlog::warn("--threads {}: this process may run on {} cores, and takes that many threads", threads, cores);
  }
  SetThreads(std::min(threads, cores));
}

std::string_view ModeName(Mode mode) { return mode == Mode::kTeacher ? "base" : "swiftkv"; }

void SamplingFlags::Add(CLI::App* command) {
  command->add_option("-n,--max-tokens", params.max_tokens,
                      "Tokens to generate at most; absent: until the context is full");
  command->add_option("--min-tokens", params.min_tokens, "No end before that many tokens")->capture_default_str();
  command->add_option("--temperature,--temp", params.temperature, "0: always the most likely token")
      ->capture_default_str();
  command->add_option("--top-k", params.top_k, "Draw from the k most likely tokens; 0: all")->capture_default_str();
  command->add_option("--top-p", params.top_p, "Draw from the most likely tokens up to this mass")
      ->capture_default_str();
  command->add_option("--min-p", params.min_p, "Leave out tokens less than this share as likely as the likeliest")
      ->capture_default_str();
  command
      ->add_option("--repetition-penalty", params.repetition_penalty,
                   "Above 1: discourages tokens of prompt and output")
      ->capture_default_str();
  command->add_option("--presence-penalty", params.presence_penalty, "Above 0: discourages tokens of the output")
      ->capture_default_str();
  command
      ->add_option("--frequency-penalty", params.frequency_penalty, "The same, for each time that the token has come")
      ->capture_default_str();
  command->add_option("-s,--seed", params.seed, "Of the draws; absent: a new one each time (shown with --json)")
      ->check(CLI::NonNegativeNumber);
  MayBeRepeated(command->add_option("--stop", params.stop, "End before this text; may be repeated"));
  MayBeRepeated(command->add_option("--stop-token-ids", params.stop_token_ids, "End at this token; may be repeated"));
  command->add_flag("--ignore-eos", params.ignore_eos, "Go on after the model's end-of-sequence token");
  MayBeRepeated(command->add_option("--logit-bias", logit_bias, "Add VALUE to a token's logit; may be repeated"))
      ->type_name("ID=VALUE");
}

Result<SamplingParams> SamplingFlags::Parse() const {
  SamplingParams parsed = params;
  for (const std::string& text : logit_bias) {
    SWIFTKV_ASSIGN_OR_RETURN(const auto bias, ParseLogitBias(text));
    parsed.logit_bias.push_back(bias);
  }
  return parsed;
}

void OutputFlags::Add(CLI::App* command) {
  command->add_flag("--json", json, "Print one JSON object instead of text");
  command->add_flag("-q,--quiet", quiet, "No timings or notes on standard error");
}

void FinishCommand(CLI::App* command, const std::string& notes) {
  for (CLI::Option* option : command->get_options()) {
    const std::vector<std::string>& names = option->get_lnames();
    if (!names.empty() && names.front() != "help") option->envname(EnvironmentName(names.front()));
  }
  command->footer(
      "\n" + notes +
      "\nExit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted (143 by SIGTERM), 141 output closed.");
}

Status CheckPrompt(const std::string& text, const std::string& origin) {
  if (text.empty()) return InvalidInput("{}: the prompt is empty", origin);
  if (const auto offset = FirstInvalidUtf8(text)) {
    return InvalidInput("{}: byte {} is not valid UTF-8", origin, *offset);
  }
  return Ok();
}

}  // namespace swiftkv
