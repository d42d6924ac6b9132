// What a training run needs to go on where it stopped, on the disk: folder/checkpoint-<step>/ with
//
//   model.safetensors     float32: value.<name>, first_moment.<name>, second_moment.<name> of each parameter
//   training_state.json   everything else, and the checksums
//
//   SWIFTKV_RETURN_IF_ERROR(SaveTrainingCheckpoint(folder, state));
//   Result<LoadedCheckpoint> loaded = LoadTrainingCheckpoint(folder, initial_state);
//   if (!loaded && loaded.error().code == ErrorCode::kNotFound) ...   // a new run
//
// A checkpoint appears under its name when all of it is on the disk, and only then do older ones go. So whatever ends
// the process or the power at any moment, the last checkpoint that was saved is there. One process trains in a folder.
#ifndef SWIFTKV_DISTILL_TRAINING_CHECKPOINT_H_
#define SWIFTKV_DISTILL_TRAINING_CHECKPOINT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "distill/parameter.h"

namespace swiftkv {

struct TrainingState {
  int64_t step = 0;                // optimizer steps done
  int64_t tokens = 0;              // trained on so far
  double seconds = 0;              // of training so far, all runs together
  std::string recipe_fingerprint;  // what must not change between the runs
  std::string device;              // that the last part ran on, which may change; empty: not known
  nlohmann::ordered_json dataset;  // where the dataset stands, in its own words; strings in UTF-8
  std::vector<Parameter> parameters;
};

// Writes folder/checkpoint-<state.step>, replacing one of that name, and then removes all but the newest `keep` (at
// least 1), as well as those of later steps, which a run that went back has left behind.
// Errors: kInvalidInput (a parameter's sizes disagree), kResourceExhausted or kIo (a full disk, say). After any error
// the checkpoints that were there are there.
Status SaveTrainingCheckpoint(const std::string& folder, const TrainingState& state, int64_t keep = 2);

struct LoadedCheckpoint {
  TrainingState state;
  std::string path;
  std::vector<std::string> warnings;  // a sentence for each newer checkpoint that is damaged
};

// The newest complete checkpoint, every byte of it verified. The fingerprint and the names and shapes of the parameters
// must be those of `expected`; the parameters come in its order. Also removes what a killed process left behind.
// Errors: kNotFound (no checkpoint), kInvalidInput (of another run: the sentence names the difference), kIo (there are
// checkpoints, but none is complete).
Result<LoadedCheckpoint> LoadTrainingCheckpoint(const std::string& folder, const TrainingState& expected);

// The path of the newest complete checkpoint, for a look at whether there is one. Errors: kNotFound, kIo as above.
Result<std::string> FindLatestCheckpoint(const std::string& folder);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_TRAINING_CHECKPOINT_H_
