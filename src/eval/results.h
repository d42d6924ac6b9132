// Results in the form of lm-eval's files, so that its tools and habits read them: results_VARIANT.json and, on request,
// samples_TASK_VARIANT.jsonl.
#ifndef SWIFTKV_EVAL_RESULTS_H_
#define SWIFTKV_EVAL_RESULTS_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/evaluation.h"
#include "eval/fidelity.h"
#include "eval/perplexity.h"

namespace swiftkv {

// All that one run of `swiftkv eval` found.
struct RunResults {
  std::string model;    // as it was named
  std::string adapter;  // empty: none
  std::vector<Variant> variants;
  Protocol protocol = Protocol::kCard;
  EvaluationOptions options;
  std::string data_folder;
  int64_t start_time = 0;  // seconds since 1970
  double seconds = 0;
  std::vector<TaskResult> tasks;
  std::vector<TextPerplexity> perplexities;  // by text and variant
  std::vector<TextFidelity> fidelities;      // by text
};

// What holds for the whole run, by name: model hashes, shots, BOS, truncation, machine.
nlohmann::ordered_json SettingsJson(const RunResults& run);

// lm-eval's results object for one variant; `run.tasks` have it. `comparison` members beside it are ours.
nlohmann::ordered_json ResultsJson(const RunResults& run, size_t variant);

// Base against SwiftKV, paired by document; an empty object where there is one variant.
nlohmann::ordered_json ComparisonJson(const RunResults& run);

// Lines of lm-eval's sample file: a line for each document and filter.
std::string SampleLines(const TaskResult& result, size_t variant);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_RESULTS_H_
