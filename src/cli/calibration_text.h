// The text that a conversion fits a student on and measures it with: the user's files, or what the base model writes
// itself, beside a small text that ships inside the program (models/calibration).
#ifndef SWIFTKV_CLI_CALIBRATION_TEXT_H_
#define SWIFTKV_CLI_CALIBRATION_TEXT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/load.h"
#include "model/sequence_batch.h"

namespace swiftkv {

// Text that a student is measured on.
struct HeldOutText {
  std::string name;  // the file, or "held out"
  std::vector<TokenSequence> sequences;
};

struct CalibrationText {
  std::vector<TokenSequence> fit;
  HeldOutText held_out;     // about a tenth, from other places of the same sources
  std::string description;  // for people: "16384 tokens of a.txt, b.jsonl"
};

struct CalibrationTextOptions {
  int64_t tokens = 0;             // at most, both parts together
  int64_t sequence_length = 512;  // tokens; texts are put one after another and cut
  uint64_t seed = 0;              // of the order of documents, and of what the model writes
  bool needs_held_out = true;     // false: a text too short to hold some of it out will do
};

// `paths`: .jsonl files with "messages" (rendered by the chat template) or "text" in each line, or plain text; each
// gives the same share. Errors: kNotFound, kInvalidInput (a line, too little text, no chat template).
Result<CalibrationText> ReadCalibrationText(const std::vector<std::string>& paths, const TextModel& model,
                                            const CalibrationTextOptions& options);

// About `tokens` tokens of each file, to measure on alone.
Result<std::vector<HeldOutText>> ReadHeldOutText(const std::vector<std::string>& paths, const TextModel& model,
                                                 const CalibrationTextOptions& options);

// The text that ships with the program alone.
Result<CalibrationText> BuiltInText(const TextModel& model, const CalibrationTextOptions& options);

// Half of the tokens sampled from the model (temperature 1, from nothing and as both sides of a chat), half built in.
// `cancelled` is asked between steps.
Result<CalibrationText> WriteOwnText(const Weights& teacher, const TextModel& model,
                                     const CalibrationTextOptions& options, const std::function<bool()>& cancelled);

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_CALIBRATION_TEXT_H_
