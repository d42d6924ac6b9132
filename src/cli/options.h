// Flags that several subcommands share. Every flag is also an environment variable: --top-k is SWIFTKV_TOP_K. A flag
// beats the variable, the variable beats the default.
#ifndef SWIFTKV_CLI_OPTIONS_H_
#define SWIFTKV_CLI_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/load.h"
#include "engine/request.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace swiftkv {

// An option of a list, each value behind a flag of its own and taken as it stands.
CLI::Option* MayBeRepeated(CLI::Option* option);
// --dtype, whose value becomes auto, bf16 or f32.
CLI::Option* AddDtypeFlag(CLI::App* command, std::string* dtype);
// --quantization, and what its value means beside --dtype's on a device.
void AddQuantizationFlag(CLI::App* command, std::string* quantization);
Quantization ParseQuantization(const std::string& quantization, const std::string& dtype,
                               const kernels::Backend& backend);
// What such an option takes: a folder, or the name of an adapter (ResolveAdapterPath), which becomes its folder.
void TakesAdapter(CLI::Option* option);
// --device, and the backend that its value means. Error kNotFound: cuda, and there is none.
void AddDeviceFlag(CLI::App* command, std::string* device);
Result<const kernels::Backend*> ChooseDevice(const std::string& device);
// A check of --kv-cache-dtype's value, and what it means.
void CheckCacheType(CLI::Option* option);
std::optional<DType> ParseCacheType(std::string_view name);
// As the flag spells it.
std::string_view QuantizationName(Quantization quantization);

// The model and how to run it.
struct ModelFlags {
  std::string model = "smollm2-135m";
  std::string adapter;
  std::string mode = "auto";
  std::string dtype = "auto";
  std::string kv_cache_dtype = "auto";
  std::string quantization = "auto";
  std::string device = "auto";
  std::string chat_template;
  int64_t max_model_len = 0;
  int64_t max_num_batched_tokens = 0;
  int threads = 0;
  std::string log_level = "warning";

  void AddModelArgument(CLI::App* command);
  void AddModel(CLI::App* command);    // the model and --adapter
  void AddRunning(CLI::App* command);  // all flags but these
  void AddAll(CLI::App* command);
  // --max-num-batched-tokens, or for 0 what suits the device.
  int64_t BatchedTokens(const kernels::Backend& backend) const {
    return max_num_batched_tokens > 0 ? max_num_batched_tokens : backend.step_tokens();
  }
  // Sets log level and number of threads, and loads. `both_modes`: the weights of base and SwiftKV, to compare them.
  Result<LoadedModel> Load(bool both_modes = false) const;
};

// What --threads asks for: 0 leaves the cores that this process may use; more than those are cut to them, with a note.
void UseThreads(int threads);

// "base" or "swiftkv", as --mode spells them.
std::string_view ModeName(Mode mode);

// How tokens are chosen; greedy unless asked otherwise.
struct SamplingFlags {
  SamplingParams params{.temperature = 0};
  std::vector<std::string> logit_bias;  // ID=VALUE

  void Add(CLI::App* command);
  // The parameters with the flags' text forms parsed. Error kInvalidInput.
  Result<SamplingParams> Parse() const;
};

// Ends the set-up of a subcommand: its environment variables, and the notes under its --help.
void FinishCommand(CLI::App* command, const std::string& notes);

// --json, --quiet
struct OutputFlags {
  bool json = false;
  bool quiet = false;
  void Add(CLI::App* command);
};

// `text` must be valid UTF-8 without being empty; `origin` names it in the error.
Status CheckPrompt(const std::string& text, const std::string& origin);

inline constexpr int64_t kMaxPromptBytes = 64 << 20;

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_OPTIONS_H_
