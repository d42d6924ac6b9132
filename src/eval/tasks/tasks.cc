#include "eval/tasks/tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "eval/rows.h"

namespace swiftkv {
namespace {

struct Loader {
  std::string_view name;
  std::string_view documents;  // their file
  TaskLoader* load;
};

constexpr Loader kLoaders[] = {
    {"arc_challenge", "arc_challenge/ARC-Challenge-Test.jsonl", LoadArcChallenge},
    {"winogrande", "winogrande/dev.jsonl", LoadWinogrande},
    {"hellaswag", "hellaswag/hellaswag_val.jsonl", LoadHellaswag},
    {"truthfulqa_mc2", "truthfulqa/truthfulqa_mc_validation.jsonl", LoadTruthfulqaMc2},
    {"mmlu", "mmlu/mmlu_test.jsonl", LoadMmlu},
    {"mmlu_cot", "mmlu/mmlu_test.jsonl", LoadMmluCot},
    {"gsm8k", "gsm8k/test.jsonl", LoadGsm8k},
};

}  // namespace

std::string_view Name(Protocol protocol) { return protocol == Protocol::kCard ? "card" : "leaderboard"; }

std::string_view Name(TruthfulqaLabels labels) { return labels == TruthfulqaLabels::kAll ? "all" : "leading"; }

const std::vector<std::string>& TaskNames() {
  static const auto* const names = [] {
    auto* list = new std::vector<std::string>();
    for (const Loader& loader : kLoaders) list->emplace_back(loader.name);
    return list;
  }();
  return *names;
}

Result<std::unique_ptr<Task>> LoadTask(std::string_view name, const TaskOptions& options, const std::string& folder) {
  const auto* const loader =
      std::find_if(std::begin(kLoaders), std::end(kLoaders), [&](const Loader& known) { return known.name == name; });
  if (loader == std::end(kLoaders)) return NotFound("there is no task {}", name);
  const std::string documents = fmt::format("{}/{}", folder, loader->documents);
  SWIFTKV_ASSIGN_OR_RETURN(std::unique_ptr<Task> task, loader->load(options, folder, documents));
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<std::string> rows, RowTexts(documents));
  if (std::ssize(rows) != task->size()) return InvalidInput("{}: it changed while it was read", documents);
  task->set_rows(std::move(rows));
  return task;
}

std::vector<std::string> CardStops() {
  return {"</s>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end_of_sentence|>"};
}

std::vector<double> ChoiceScores(const std::vector<ScoredChoice>& choices, const std::vector<int64_t>& lengths,
                                 int64_t gold) {
  const auto best = [&](const auto& value) {
    size_t best_choice = 0;
    for (size_t i = 1; i < choices.size(); ++i) {
      if (value(i) > value(best_choice)) best_choice = i;
    }
    return static_cast<int64_t>(best_choice) == gold ? 1.0 : 0.0;
  };
  std::vector<double> scores = {best([&](size_t i) { return choices[i].loglikelihood; })};
  if (!lengths.empty()) {
    scores.push_back(best([&](size_t i) { return choices[i].loglikelihood / static_cast<double>(lengths[i]); }));
  }
  return scores;
}

}  // namespace swiftkv
