// Prefill and decode as llama-bench measures them: pp512, tg128, pp512+tg64, at depths ("@ d4096"); base and SwiftKV
// side by side. Without tokenizing and sampling; the lm_head of the logit rows is in.
//
//   SWIFTKV_ASSIGN_OR_RETURN(std::vector<LatencyResult> results, MeasureLatency(model, {{.prompt = 512}}, {}));
//   results[0].modes[1].tokens_per_second() / results[0].modes[0].tokens_per_second();   // SwiftKV over base
#ifndef SWIFTKV_BENCH_LATENCY_H_
#define SWIFTKV_BENCH_LATENCY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/machine.h"
#include "bench/measured_model.h"
#include "bench/roofline.h"

namespace swiftkv {

// Tokens count for one sequence.
struct LatencyTest {
  int64_t prompt = 0;           // in one go
  int64_t generate = 0;         // one after another, after the prompt
  int64_t depth = 0;            // already in the cache
  int64_t sequences = 1;        // that run together
  int64_t batch_tokens = 2048;  // of one step at most
  int threads = 1;
  std::optional<DType> kv_cache_dtype = {};  // absent: the weights' type
};
// "pp512", "tg128", "pp512+tg64 @ d4096"
std::string TestName(const LatencyTest& test);
// Error kInvalidInput: a number out of range, or more tokens than the model's context.
Status Validate(const LatencyTest& test, const ModelConfig& config);

struct LatencyOptions {
  int64_t repetitions = 5;
  bool warm_up = true;
  std::function<bool()> cancelled = {};                          // asked before every repetition
  std::function<void(int64_t done, int64_t all)> progress = {};  // repetitions of all tests
};

struct ModeLatency {
  Mode mode = Mode::kTeacher;
  std::vector<double> seconds;  // by repetition
  int64_t tokens = 0;           // of one repetition, all sequences together; what `depth` holds does not count
  Work work;                    // of one repetition

  std::vector<double> speeds() const;  // tokens a second, by repetition
  double tokens_per_second() const;    // their mean, as llama-bench's
};

struct LatencyResult {
  LatencyTest test;
  std::vector<ModeLatency> modes;  // as the model's modes
};

// Repetitions of the modes alternate, so that what else the machine does meets both alike. Errors: those of Validate;
// kResourceExhausted (cache memory); kCancelled.
Result<std::vector<LatencyResult>> MeasureLatency(const MeasuredModel& model, const std::vector<LatencyTest>& tests,
                                                  const LatencyOptions& options);

struct LatencyReport {
  MachineInfo machine;
  ModelInfo model;
  DType product_dtype = DType::kBF16;  // ProductDType
  std::vector<LatencyResult> results;
  std::vector<Roofline> rooflines;  // one for each result; empty: not measured
};

enum class ReportFormat { kMarkdown, kCsv, kJson, kJsonLines };
// "md", "csv", "json", "jsonl"
Result<ReportFormat> ParseReportFormat(const std::string& name);

// JSON and CSV: one object or line for each test and mode, fields named as llama-bench's where it has them.
std::string LatencyReportText(const LatencyReport& report, ReportFormat format);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_LATENCY_H_
