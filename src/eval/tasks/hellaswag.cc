// HellaSwag (Zellers et al. 2019): which of four endings continues a scene.
#include <fmt/format.h>

#include <utility>

#include "eval/filters.h"
#include "eval/rows.h"
#include "eval/tasks/tasks.h"
#include "text/json_reader.h"

namespace swiftkv {
namespace {

constexpr size_t kEndings = 4;

struct Scene {
  std::string query;
  std::vector<std::string> endings = {};
  int64_t gold = 0;
};

// Marks of the set's WikiHow half: "[title]" becomes the end of a sentence, every other "[...]" goes.
std::string Preprocess(std::string_view text) {
  const std::string titled = ReplaceAll(Strip(text), " [title]", ". ");
  std::string result;
  size_t begin = 0;
  for (size_t open = titled.find('['); open != std::string::npos; open = titled.find('[', open)) {
    const size_t close = titled.find_first_of("]\n", open);
    if (close == std::string::npos) break;
    if (titled[close] == '\n') {  // the dot of \[.*?\] matches no newline
      open = close;
      continue;
    }
    result += titled.substr(begin, open - begin);
    begin = open = close + 1;
  }
  result += titled.substr(begin);
  return ReplaceAll(result, "  ", " ");
}

// An integer in the authors' file, text in the Hub's copy of it.
Result<int64_t> ReadGold(const JsonObject& row) {
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* label, row.Get("label"));
  if (label->is_number()) return row.Int("label", 0, kEndings - 1);
  SWIFTKV_ASSIGN_OR_RETURN(const std::string digit, row.String("label"));
  if (digit.size() != 1 || digit[0] < '0' || digit[0] >= static_cast<char>('0' + kEndings)) {
    return InvalidInput("{} must be 0 to {}", row.Place("label"), kEndings - 1);
  }
  return digit[0] - '0';
}

Result<Scene> ReadScene(const JsonObject& row) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string label, row.String("activity_label"));
  SWIFTKV_ASSIGN_OR_RETURN(const std::string first, row.String("ctx_a"));
  SWIFTKV_ASSIGN_OR_RETURN(const std::string second, row.String("ctx_b"));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<std::string> endings, Strings(row, "endings", kEndings));
  Scene scene{.query = Preprocess(fmt::format("{}: {} {}", label, first, Capitalize(second)))};
  SWIFTKV_ASSIGN_OR_RETURN(scene.gold, ReadGold(row));
  for (const std::string& ending : endings) scene.endings.push_back(Preprocess(ending));
  return scene;
}

Result<std::vector<Scene>> ReadScenes(const std::string& path) {
  std::vector<Scene> scenes;
  SWIFTKV_RETURN_IF_ERROR(ForEachRow(path, [&](const JsonObject& row) -> Status {
    SWIFTKV_ASSIGN_OR_RETURN(scenes.emplace_back(), ReadScene(row));
    return Ok();
  }));
  return scenes;
}

class Hellaswag final : public Task {
 public:
  Hellaswag(TaskInfo info, std::vector<Scene> scenes, const std::vector<Scene>& shots)
      : Task(std::move(info)), scenes_(std::move(scenes)) {
    for (const Scene& shot : shots) {
      shots_ += fmt::format("{} {}\n\n", shot.query, shot.endings[static_cast<size_t>(shot.gold)]);
    }
  }
  int64_t size() const override { return static_cast<int64_t>(scenes_.size()); }
  Prompt MakePrompt(int64_t document) const override {
    Prompt prompt;
    for (const std::string& ending : at(document).endings) {
      prompt.choices.push_back({shots_ + at(document).query, " " + ending});
    }
    return prompt;
  }
  Outcome Score(int64_t document, const Response& response) const override {
    std::vector<int64_t> lengths;
    for (const std::string& ending : at(document).endings) lengths.push_back(Characters(ending));
    const std::vector<double> scores = ChoiceScores(response.choices, lengths, at(document).gold);
    return {.scores = {scores[1], scores[0]}};
  }
  std::string Target(int64_t document) const override { return fmt::format("{}", at(document).gold); }

 private:
  const Scene& at(int64_t document) const { return scenes_[static_cast<size_t>(document)]; }

  std::vector<Scene> scenes_;
  std::string shots_;
};

}  // namespace

// The same in both protocols.
Result<std::unique_ptr<Task>> LoadHellaswag(const TaskOptions& /*options*/, const std::string& folder,
                                            const std::string& documents) {
  constexpr size_t kShots = 10;
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Scene> scenes, ReadScenes(documents));
  const std::string path = folder + "/hellaswag/hellaswag_train_fewshot11.jsonl";
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Scene> shots, ReadScenes(path));
  SWIFTKV_RETURN_IF_ERROR(KeepShots(kShots, path, &shots));
  return std::make_unique<Hellaswag>(TaskInfo{.name = "hellaswag",
                                              .title = "HellaSwag",
                                              .num_fewshot = kShots,
                                              .metrics = {{"acc_norm", "none"}, {"acc", "none"}}},
                                     std::move(scenes), shots);
}

}  // namespace swiftkv
