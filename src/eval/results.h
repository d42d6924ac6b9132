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

// What results say of a variant, whose weights may be gone.
struct VariantInfo {
  std::string name;
  Mode mode = Mode::kTeacher;
  std::string adapter = {};  // its folder; empty: none
  std::string hash = {};
  int64_t num_hidden_layers = 0;
  int64_t num_key_value_layers = 0;  // of base all of them
  int64_t key_value_group_size = 1;
  DType dtype = DType::kBF16;
  DType kv_cache_dtype = DType::kBF16;
  std::string quantization = "none";
  std::string device = {};
  std::string isa = {};
  std::string chat_template_hash = {};  // as Variant's
  int64_t max_model_len = 0;
};
VariantInfo Describe(const Variant& variant, const std::string& adapter, const EvaluationOptions& options);

// All that one run of `swiftkv eval` found.
struct RunResults {
  std::string model;                  // as it was named
  std::vector<VariantInfo> variants;  // base first, if it is there
  TaskOptions task_options;
  EvaluationOptions options;
  std::string data_folder;
  int64_t start_time = 0;  // seconds since 1970
  double seconds = 0;
  std::vector<TaskResult> tasks;
  std::vector<TextPerplexity> perplexities;  // by text and variant
  std::vector<TextFidelity> fidelities;      // by text and variant

  // The variants that are compared with base; none where base is missing.
  std::vector<size_t> compared() const;
};

// The mean of the groups' scores, as a metric of its own: "acc_macro".
Metric Macro(const Metric& metric);

// What holds for the whole run, by name: model hashes, shots, BOS, truncation, machine.
nlohmann::ordered_json SettingsJson(const RunResults& run);

// lm-eval's results object for one variant; its member "swiftkv" is ours.
nlohmann::ordered_json ResultsJson(const RunResults& run, size_t variant);

// By SwiftKV variant: its scores against base's, paired by document; an empty object where there is nothing to compare.
nlohmann::ordered_json ComparisonJson(const RunResults& run);

// Lines of lm-eval's sample file: a line for each document and filter.
std::string SampleLines(const TaskResult& result, size_t variant, const EvaluationOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_RESULTS_H_
