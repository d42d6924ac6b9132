// Text that the base model writes itself, to train a student on its own words: answers to the prompts of the recipe's
// kPrompts sources, and continuations of their texts.
//
//   SWIFTKV_ASSIGN_OR_RETURN(TeacherText written, WriteTeacherText(recipe.data.sources, teacher, text,
//                            {.generate = recipe.generate, .seed = recipe.seed}, "teacher.jsonl", go_on));
//   recipe.data.sources.push_back({.path = "teacher.jsonl"});   // an ordinary source
//
// A row is {"messages": [..., the answer]} or {"text": beginning and continuation}. Of a conversation all up to its
// last answer is the prompt; of a text its first tokens. Each row follows from the options and its number alone,
// however many are written side by side and however often the work was stopped.
#ifndef SWIFTKV_CLI_TEACHER_TEXT_H_
#define SWIFTKV_CLI_TEACHER_TEXT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "distill/recipe.h"
#include "engine/engine.h"
#include "engine/load.h"

namespace swiftkv {

struct TeacherTextOptions {
  GenerateRecipe generate;       // count, max_tokens, temperature, top_p
  std::string model;             // which model writes, for telling its rows from another's
  int64_t seed = 0;              // not negative
  int64_t prompt_tokens = 1024;  // a longer prompt is passed over
  int64_t prefix_tokens = 32;    // of a text that is continued
  int64_t parallel = 64;         // rows written side by side, fewer if half of the free memory doesn't hold their K/V
};

struct TeacherText {
  int64_t rows = 0;         // in the file
  int64_t found = 0;        // of these, from an earlier run
  int64_t wanted = 0;       // rows
  int64_t passed_over = 0;  // prompts that can't be used
  int64_t tokens = 0;       // written in this run
  double seconds = 0;       // of this run
};

// Writes `path` (cli/answer_file.h). Held-out rows of any source serve as prompts for none. `go_on` is asked before
// every step of the engine; after false the rows so far are kept for the next run and the error is kCancelled. Errors:
// those of the sources and the file; kInvalidInput (no kPrompts source, none of its prompts can be used).
Result<TeacherText> WriteTeacherText(const std::vector<SourceRecipe>& sources, const Weights& teacher,
                                     const TextModel& text, const TeacherTextOptions& options, const std::string& path,
                                     const std::function<bool(const TeacherText&)>& go_on);

// "answers 120 of 1000, 1523 tok/s, 12:34 left", for people.
std::string ProgressLine(const TeacherText& text);

// An engine for `parallel` sequences of at most `length` tokens side by side, fewer if half of the free memory doesn't
// hold their K/V. Errors: those of Engine::Create.
Result<std::unique_ptr<Engine>> CreateWriter(const Weights& teacher, const Tokenizer& tokenizer, int64_t length,
                                             int64_t parallel);

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_TEACHER_TEXT_H_
