// Rows of training text, endless or for so many epochs, in bounded memory: files are mapped, each row of them costs 8
// bytes, and a seeded permutation takes the place of a shuffled list.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto data, Dataset::Open(recipe.data, {.seed = 42, .epochs = 1}, {&tokenizer, &chat}));
//   while (true) {
//     SWIFTKV_ASSIGN_OR_RETURN(std::optional<PackedSequence> row, data->Next());
//     if (!row) break;
//     ...
//   }
//   nlohmann::ordered_json saved = ToJson(data->state());   // Restore: the rows go on as if nothing had happened
//
// Sources. A .jsonl source has a document a line: {"messages": [...]}, rendered by the chat template, or {"text": ...}.
// Any other file is plain text and is cut into documents of about kPlainDocumentBytes at blank lines. A row that can't
// be used is skipped and counted; a source without a usable row is an error.
//
// Order. Without weights each row comes once an epoch, sources evenly mixed. With weights a source's share of the
// tokens follows its weight (the mean of the others' where it has none), small sources begin again, and an epoch ends
// when every source has been gone through.
//
// Held-out rows are chosen by a hash of their own bytes, which neither seed nor count changes; a training row that
// equals a held-out row of any source is left out.
//
// Loss. in_loss[t] is 1 if token t + 1 counts and is of the same document. With mask_inputs these are, in a
// conversation, what the assistant says and the token that ends it, and in a text all tokens. Without mask_inputs
// in_loss is 1 everywhere, ends of documents included.
#ifndef SWIFTKV_DISTILL_DATASET_H_
#define SWIFTKV_DISTILL_DATASET_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "distill/packed_sequence.h"
#include "distill/recipe.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace swiftkv {

struct DatasetOptions {
  int64_t seed = 0;       // not negative
  int64_t epochs = 0;     // 0: endless
  int64_t unix_time = 0;  // what templates take for now, in seconds; 0: the time of Open. A state keeps it.
};

// Must outlive the dataset. `chat_template` may be null if no source has "messages".
struct DatasetText {
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplate* chat_template = nullptr;
};

// What metrics and reports call the recipe's sources, of any role: the files' names, told from each other by folders
// above them where they are the same.
std::vector<std::string> SourceNames(const DataRecipe& recipe);

struct DatasetSource {
  std::string path;
  std::string name;  // of SourceNames
  SourceRole role = SourceRole::kTrain;
  int64_t bytes = 0;
  int64_t train_rows = 0;  // after held-out rows and `count`
  int64_t held_out_rows = 0;
};

// Where a run stands. Small: a few numbers a source.
struct DatasetState {
  struct Source {
    uint64_t fingerprint = 0;  // of the training rows
    int64_t pass = 0;          // times that all rows were gone through
    int64_t position = 0;      // rows drawn in this pass
    int64_t tokens = 0;        // drawn so far

    bool operator==(const Source&) const = default;
  };
  // A document of which a part is still to come.
  struct Open {
    int64_t source = 0;
    int64_t row = 0;     // among the source's training rows
    int64_t offset = 0;  // its first token that has not been given

    bool operator==(const Open&) const = default;
  };
  int64_t seed = 0;
  int64_t unix_time = 0;
  int64_t sequences = 0;  // rows that Next has given
  int64_t skipped_rows = 0;
  std::vector<Source> sources;
  std::optional<Open> open;

  bool operator==(const DatasetState&) const = default;
};

nlohmann::ordered_json ToJson(const DatasetState& state);
// Error kInvalidInput names the field. `origin` opens the message.
Result<DatasetState> ParseDatasetState(const nlohmann::ordered_json& json, const std::string& origin);

class Dataset {
 public:
  // Reads every source once, to find its rows (about a gigabyte a second), and checks that each has a row of text;
  // kPrompts sources are left out. Errors: those of opening a file; kInvalidInput (no source to train on, no rows).
  static Result<std::unique_ptr<Dataset>> Open(const DataRecipe& recipe, const DatasetOptions& options,
                                               const DatasetText& text);
  ~Dataset();

  // The next row; nullopt after the last epoch. Error kInvalidInput: no row of a source can be used.
  Result<std::optional<PackedSequence>> Next();

  DatasetState state() const;
  // Errors kInvalidInput: the state is of other sources, or of these with other rows.
  Status Restore(const DatasetState& state);

  // Rows that Next gives from the beginning to the end of the epochs, by going through them: as long as tokenizing
  // takes. Leaves the state alone. Error kInvalidInput: endless; those of Next.
  Result<int64_t> CountSequences();

  // Training sources first, in the recipe's order, then those with role kEval.
  const std::vector<DatasetSource>& sources() const;
  // Held-out documents of one source, packed as training rows are, at most about `max_tokens` tokens (the last row may
  // be cut). Always the same for the same files. Error kInvalidInput: no held-out row can be used.
  Result<std::vector<PackedSequence>> HeldOut(int64_t source, int64_t max_tokens) const;

  // Rows that could not be used so far, and a sentence with file and line for each source's first of them.
  int64_t skipped_rows() const;
  const std::vector<std::string>& warnings() const;

 private:
  class Impl;
  explicit Dataset(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_DATASET_H_
