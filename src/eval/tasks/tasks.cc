#include "eval/tasks/tasks.h"

#include <algorithm>
#include <utility>

namespace swiftkv {
namespace {

using Loader = Result<std::unique_ptr<Task>> (*)(const TaskOptions& options, const std::string& folder);

constexpr std::pair<std::string_view, Loader> kLoaders[] = {
    {"arc_challenge", LoadArcChallenge},
    {"winogrande", LoadWinogrande},
    {"hellaswag", LoadHellaswag},
    {"truthfulqa_mc2", LoadTruthfulqaMc2},
    {"mmlu", LoadMmlu},
    {"mmlu_cot", LoadMmluCot},
    {"gsm8k", LoadGsm8k},
};

}  // namespace

std::string_view Name(Protocol protocol) { return protocol == Protocol::kCard ? "card" : "leaderboard"; }

std::string_view Name(TruthfulqaLabels labels) { return labels == TruthfulqaLabels::kAll ? "all" : "leading"; }

const std::vector<std::string>& TaskNames() {
  static const auto* const names = [] {
    auto* list = new std::vector<std::string>();
    for (const auto& [name, loader] : kLoaders) list->emplace_back(name);
    return list;
  }();
  return *names;
}

Result<std::unique_ptr<Task>> LoadTask(std::string_view name, const TaskOptions& options, const std::string& folder) {
  for (const auto& [known, load] : kLoaders) {
    if (known == name) return load(options, folder);
  }
  return NotFound("there is no task {}", name);
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
