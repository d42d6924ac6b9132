// One loader a task; LoadTask (eval/task.h) finds them by name. `folder` is the root of all sets, `documents` the file
// of the documents in it.
#ifndef SWIFTKV_EVAL_TASKS_TASKS_H_
#define SWIFTKV_EVAL_TASKS_TASKS_H_

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/task.h"

namespace swiftkv {

using TaskLoader = Result<std::unique_ptr<Task>>(const TaskOptions& options, const std::string& folder,
                                                 const std::string& documents);
TaskLoader LoadArcChallenge;
TaskLoader LoadWinogrande;
TaskLoader LoadHellaswag;
TaskLoader LoadTruthfulqaMc2;
TaskLoader LoadMmlu;
TaskLoader LoadMmluCot;  // error kNotFound for Protocol::kLeaderboard, which has no such task
TaskLoader LoadGsm8k;

// Leaves the first `count` of the rows of file `path`. Error kInvalidInput: there are fewer.
template <class Row>
Status KeepShots(size_t count, const std::string& path, std::vector<Row>* rows) {
  if (rows->size() < count) return InvalidInput("{}: {} rows; the {} shots need more", path, rows->size(), count);
  rows->resize(count);
  return Ok();
}

// Stop strings of the card's generated answers.
std::vector<std::string> CardStops();

// acc, and acc_norm where `lengths` (characters of each choice) is not empty: whether the choice of the greatest
// log-likelihood, a character in the second case, is `gold`. The first of equal ones wins.
std::vector<double> ChoiceScores(const std::vector<ScoredChoice>& choices, const std::vector<int64_t>& lengths,
                                 int64_t gold);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_TASKS_TASKS_H_
