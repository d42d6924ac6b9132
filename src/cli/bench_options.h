// What the `bench` commands share: flags for the model to measure, lists of numbers, a line of progress.
#ifndef SWIFTKV_CLI_BENCH_OPTIONS_H_
#define SWIFTKV_CLI_BENCH_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "bench/engine_load.h"
#include "bench/measured_model.h"
#include "cli/commands.h"

namespace swiftkv {

// `bench`'s own subcommands, one file each.
RunCommand AddBenchLatencyCommand(CLI::App* bench);
RunCommand AddBenchThroughputCommand(CLI::App* bench);
RunCommand AddBenchServeCommand(CLI::App* bench);
RunCommand AddBenchSweepCommand(CLI::App* bench);
RunCommand AddBenchRooflineCommand(CLI::App* bench);

struct MeasuredModelFlags {
  std::string model = "smollm2-135m";
  std::string adapter;
  std::string load_format = "auto";
  std::string config;
  int64_t num_key_value_layers = 0;
  int64_t key_value_group_size = 0;
  std::string mode = "auto";
  std::string dtype = "auto";
  std::string quantization = "none";
  std::string device = "auto";

  void Add(CLI::App* command);
  Result<MeasuredModel> Load() const;
};

// --kv-cache-dtype; absent: the type of --dtype.
void AddCacheFlag(CLI::App* command, std::optional<DType>* kv_cache_dtype);

// --max-num-batched-tokens, --max-num-seqs, --kv-cache-dtype, --kv-cache-tokens
void AddEngineFlags(CLI::App* command, EngineLoadOptions* engine);

// "512,2048": whole numbers from `least` up. Error kInvalidInput names `flag`.
Result<std::vector<int64_t>> ParseNumbers(std::string_view flag, std::string_view text, int64_t least);
// "0.5,1,inf": numbers above zero.
Result<std::vector<double>> ParseRates(std::string_view flag, std::string_view text);
// "50,99.9": numbers from 0 to 100.
Result<std::vector<double>> ParsePercents(std::string_view flag, std::string_view text);

// "latency 3/20" on one line of a terminal; nothing where standard error is none.
class ProgressLine {
 public:
  ProgressLine(std::string what, bool quiet);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void Show(std::string_view state);

 private:
  std::string what_;
  bool shows_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_BENCH_OPTIONS_H_
