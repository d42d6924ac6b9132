// Distillation's tokens per second of whole steps, as swiftkv_torch.py counts them.
//
//   build/release/trainer_bench                  the default model, n = 15, micro-batches of 4 x 512 and 4 x 1,024
//                                                tokens in BF16
//   build/cuda/trainer_bench --device=cuda --config=src/bench/configs/llama-3.1-8b.json --n=16 --tokens=8192
//       --micro_batches=1 --peak_tflops=989      a model of that shape with random weights, on a GPU
//
// Other flags of a measurement with --config: --rows (of a micro-batch, 1), --recompute (0 or 1: activation
// checkpointing), --steps (that are timed, 3). Beside tokens: the operations of products and attention that a step
// needs, what is recomputed left out, and their share of --peak_tflops.
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/json_file.h"
#include "distill/trainer.h"
#include "model/model_files.h"
#include "model/swiftkv_transform.h"

namespace swiftkv {
namespace {

struct BenchOptions {
  std::string config;
  int64_t n = 0;  // 0: half of the layers
  int64_t tokens = 8192;
  int64_t rows = 1;
  int64_t micro_batches = 1;
  int64_t recompute = 0;
  int64_t steps = 3;
  int64_t peak_tflops = 0;  // 0: not known
  const kernels::Backend* backend = nullptr;
};

PackedSequence RandomRow(int64_t tokens, int64_t vocab, uint32_t seed) {
  PackedSequence row;
  for (int64_t t = 0; t < tokens; ++t) {
    const uint32_t value = (seed * 31 + static_cast<uint32_t>(t)) * 7919;
    row.token_ids.push_back(static_cast<int32_t>(value % static_cast<uint32_t>(vocab)));
  }
  row.in_loss.assign(row.token_ids.size(), 1);
  row.document_begins = {0};
  return row;
}

std::vector<std::vector<PackedSequence>> RandomBatches(const BenchOptions& options, int64_t vocab) {
  std::vector<std::vector<PackedSequence>> batches(static_cast<size_t>(options.micro_batches));
  uint32_t seed = 0;
  for (std::vector<PackedSequence>& batch : batches) {
    for (int64_t row = 0; row < options.rows; ++row) batch.push_back(RandomRow(options.tokens, vocab, seed++));
  }
  return batches;
}

// Operations (2 for each multiplication and addition) that a step of one row needs for a token, all in the loss.
double OperationsPerToken(const ModelConfig& c, int64_t tokens) {
  const auto product = [](int64_t n, int64_t k) { return 2.0 * static_cast<double>(n) * static_cast<double>(k); };
  const auto later = static_cast<double>(c.num_hidden_layers - c.num_key_value_layers);
  const double q = product(c.q_size(), c.hidden_size);
  const double kv = product(2 * c.kv_size(), c.hidden_size);
  const double frozen = product(c.hidden_size, c.q_size()) + product(3 * c.intermediate_size, c.hidden_size);
  const double later_kv = static_cast<double>(c.kv_groups() - c.num_key_value_layers) * kv;
  const double head = product(c.vocab_size, c.hidden_size);
  const double attention = product(2 * c.q_size(), (tokens + 1) / 2);  // causal
  const double teacher = static_cast<double>(c.num_hidden_layers) * (q + kv + frozen + attention) + head;
  const double student = later * (q + frozen + attention) + later_kv + head;
  // Of frozen matrices the gradient of inputs alone; nothing goes further down than layer n.
  const double backward = later * (2 * q + frozen + 2.5 * attention) - q + 2 * later_kv + head;
  return teacher + student + backward;
}

void ReportMemory(benchmark::State& state) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  state.counters["peak_GiB"] = static_cast<double>(usage.ru_maxrss) / (1 << 20);
}

void RunSteps(benchmark::State& state, const BenchOptions& options, Trainer* trainer) {
  const auto batches = RandomBatches(options, trainer->config().vocab_size);
  const auto begin = std::chrono::steady_clock::now();
  for (auto _ : state) {
    if (const auto report = trainer->Step(batches, 1e-5); !report) {
      return state.SkipWithError(report.error().message.c_str());
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const double tokens = static_cast<double>(options.tokens * options.rows * options.micro_batches);
  const double operations = tokens * OperationsPerToken(trainer->config(), options.tokens);
  const auto steps = static_cast<double>(state.iterations());
  state.counters["tok/s"] = benchmark::Counter(steps * tokens, benchmark::Counter::kIsRate);
  state.counters["FLOP/s"] = benchmark::Counter(steps * operations, benchmark::Counter::kIsRate);
  if (options.peak_tflops > 0) {
    const double peak = static_cast<double>(options.peak_tflops) * 1e12;
    state.counters["of_peak"] = steps * operations / seconds.count() / peak;
  }
  ReportMemory(state);
}

// Arguments: tokens of a row, rows of a micro-batch, activation checkpointing.
void Distill(benchmark::State& state, BenchOptions bench) {
  const Result<ModelFiles> files = OpenModelFiles(std::string(kDefaultModel), "");
  if (!files) return state.SkipWithError(files.error().message.c_str());
  const ModelConfig student = *StudentConfig(files->config, 15, 1);
  const MemoryTensors start = *InitStudent(student, *files->base, Init::kScaled, DType::kF32);
  bench.tokens = state.range(0);
  bench.rows = state.range(1);
  TrainerOptions options;
  options.activation_checkpointing = state.range(2) != 0;
  options.backend = bench.backend;
  const auto trainer = Trainer::Create(student, *files->base, start, options);
  if (!trainer) return state.SkipWithError(trainer.error().message.c_str());
  RunSteps(state, bench, trainer->get());
}

Result<std::unique_ptr<Trainer>> RandomTrainer(const BenchOptions& bench) {
  SWIFTKV_ASSIGN_OR_RETURN(const auto json, ReadJsonFile(bench.config));
  SWIFTKV_ASSIGN_OR_RETURN(const ModelConfig base, ParseHfConfig(json, bench.config));
  const int64_t n = bench.n > 0 ? bench.n : (base.num_hidden_layers + 1) / 2;
  SWIFTKV_ASSIGN_OR_RETURN(const ModelConfig student, StudentConfig(base, n, 1));
  TrainerOptions options;
  options.activation_checkpointing = bench.recompute != 0;
  options.backend = bench.backend;
  return Trainer::CreateRandom(student, 1, options);
}

void DistillRandom(benchmark::State& state, const BenchOptions& bench) {
  const Result<std::unique_ptr<Trainer>> trainer = RandomTrainer(bench);
  if (!trainer) return state.SkipWithError(trainer.error().message.c_str());
  // The first step reserves work memory, and a GPU's libraries choose their kernels in it.
  if (const auto report = (*trainer)->Step(RandomBatches(bench, (*trainer)->config().vocab_size), 1e-5); !report) {
    return state.SkipWithError(report.error().message.c_str());
  }
  RunSteps(state, bench, trainer->get());
}

// Takes our own flags out of argv. Empty: all is well, else what isn't.
std::string ReadFlags(int* argc, char** argv, BenchOptions* options) {
  std::string device;
  const std::map<std::string_view, std::string*> texts = {{"device", &device}, {"config", &options->config}};
  const std::map<std::string_view, int64_t*> numbers = {{"n", &options->n},
                                                        {"tokens", &options->tokens},
                                                        {"rows", &options->rows},
                                                        {"steps", &options->steps},
                                                        {"recompute", &options->recompute},
                                                        {"micro_batches", &options->micro_batches},
                                                        {"peak_tflops", &options->peak_tflops}};
  int kept = 1;
  for (int i = 1; i < *argc; ++i) {
    const std::string_view flag = argv[i];
    const size_t equals = flag.find('=');
    const std::string_view name = flag.starts_with("--") ? flag.substr(2, equals - 2) : std::string_view();
    const std::string_view value = equals == std::string_view::npos ? std::string_view() : flag.substr(equals + 1);
    if (const auto text = texts.find(name); text != texts.end()) {
      *text->second = value;
    } else if (const auto number = numbers.find(name); number != numbers.end()) {
      const auto parsed = std::from_chars(value.data(), value.data() + value.size(), *number->second);
      if (parsed.ec != std::errc() || *number->second < 0) return std::string(flag) + ": not a number";
    } else {
      argv[kept++] = argv[i];
    }
  }
  *argc = kept;
  if (device.empty() || device == "cpu") return {};
  if (device != "cuda") return "--device can be cpu or cuda";
  const Result<const kernels::Backend*> cuda = kernels::CudaBackend();
  if (!cuda) return cuda.error().message;
  options->backend = *cuda;
  return {};
}

}  // namespace
}  // namespace swiftkv

int main(int argc, char** argv) {
  swiftkv::BenchOptions options;
  if (const std::string problem = swiftkv::ReadFlags(&argc, argv, &options); !problem.empty()) {
    std::fprintf(stderr, "trainer_bench: %s\n", problem.c_str());
    return 1;
  }
  if (options.config.empty()) {
    benchmark::RegisterBenchmark("Distill", swiftkv::Distill, options)
        ->Args({512, 4, 0})
        ->Args({1024, 4, 0})
        ->Args({1024, 4, 1})
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  } else {
    benchmark::RegisterBenchmark("DistillRandom", swiftkv::DistillRandom, options)
        ->Iterations(std::max<int64_t>(options.steps, 1))
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
