// Everything that a distillation run needs besides the weights, and the YAML file that says it, in ArcticTraining's
// keys (public repository snowflakedb/ArcticTraining, projects/swiftkv; recipes written for it are read as they are).
//
//   std::vector<std::string> warnings;
//   SWIFTKV_ASSIGN_OR_RETURN(std::string yaml, ReadFile("recipe.yaml", kMaxRecipeBytes));
//   SWIFTKV_ASSIGN_OR_RETURN(Recipe recipe, ParseRecipe(yaml, "recipe.yaml", &warnings));
//   WriteFile("result/recipe.yaml", ToYaml(recipe));   // ParseRecipe gives the same recipe back
//
// docs/distill.md lists the keys.
#ifndef SWIFTKV_DISTILL_RECIPE_H_
#define SWIFTKV_DISTILL_RECIPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"

namespace swiftkv {

inline constexpr int64_t kMaxRecipeBytes = 256 << 10;
inline constexpr size_t kMaxSources = 1000;
inline constexpr int64_t kMaxSteps = 1'000'000'000;

struct ModelRecipe {
  std::string name_or_path = {};                     // design section 6; empty: said elsewhere (a flag)
  std::optional<int64_t> num_key_value_layers = {};  // n; absent: half of the layers
  std::optional<int64_t> key_value_group_size = {};  // g; absent: 1
  DType dtype = DType::kBF16;                        // of weights and activations: kBF16 or kF32

  bool operator==(const ModelRecipe&) const = default;
};

enum class SourceRole {
  kTrain,    // trained on, but for its held-out rows
  kEval,     // held out whole: only measured
  kPrompts,  // its prompts are answered by the base model, and the answers trained on
};

// One file of text: .jsonl with "messages" or "text" in each line, or plain text.
struct SourceRecipe {
  std::string path = {};
  SourceRole role = SourceRole::kTrain;
  int64_t count = 0;         // at most so many rows, drawn by the seed; 0: all
  double weight = 0;         // share of the training tokens, relative to the other weights; 0: their mean
  double held_out = 0;       // below 1: that share of its rows; else so many rows
  std::string licence = {};  // for the model card

  bool operator==(const SourceRecipe&) const = default;
};

struct DataRecipe {
  std::vector<SourceRecipe> sources = {};
  int64_t max_length = 1024;       // tokens of one row
  bool mask_inputs = true;         // of a conversation only what the assistant says counts in the loss; else all tokens
  bool pack_samples = true;        // several documents a row; else one
  bool always_max_length = false;  // documents are cut so that every row is full
  bool drop_last = false;          // without the last row, where it is not full
  double fuse_positions_prob = 0;  // of a packed row counting as one document

  bool operator==(const DataRecipe&) const = default;
};

// How the base model answers the prompts of sources with role kPrompts.
struct GenerateRecipe {
  int64_t count = 0;  // answers; 0: none
  int64_t max_tokens = 512;
  double temperature = 1;
  double top_p = 1;
  double weight = 0;  // share of the training tokens, as of a source

  bool operator==(const GenerateRecipe&) const = default;
};

// AdamW
struct OptimizerRecipe {
  double learning_rate = 2e-4;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;

  bool operator==(const OptimizerRecipe&) const = default;
};

enum class ScheduleKind { kLinear, kCosine, kConstant };

struct SchedulerRecipe {
  ScheduleKind kind = ScheduleKind::kLinear;
  double warmup_ratio = 0.05;  // of all steps; counts where warmup_steps is absent
  std::optional<int64_t> warmup_steps = {};
  double min_lr_ratio = 0;  // the schedule ends at this share of learning_rate

  // Steps of linear warm-up in a run of `steps`.
  int64_t WarmupSteps(int64_t steps) const;

  bool operator==(const SchedulerRecipe&) const = default;
};

struct CheckpointRecipe {
  std::string output_dir = {};     // empty: said elsewhere (a flag)
  int64_t save_every_n_steps = 0;  // 0: only when stopped and at the end
  int64_t keep = 1;                // the newest so many training checkpoints stay

  bool operator==(const CheckpointRecipe&) const = default;
};

struct EvalRecipe {
  int64_t every_n_steps = 0;  // 0: only at the beginning and at the end
  int64_t tokens = 8192;      // of each source, at most

  bool operator==(const EvalRecipe&) const = default;
};

enum class HiddenLossKind {
  kMse,       // the reference's: mean over tokens and elements of (student - teacher)²
  kRelative,  // mean over tokens of |student - teacher|² / |teacher|²: outliers of a few dimensions don't drown the KL
};

struct Recipe {
  ModelRecipe model;
  DataRecipe data;
  GenerateRecipe generate;
  OptimizerRecipe optimizer;
  SchedulerRecipe scheduler;
  CheckpointRecipe checkpoint;
  EvalRecipe eval;

  int64_t micro_batch_size = 4;             // rows of one forward and backward pass
  int64_t gradient_accumulation_steps = 1;  // passes of one optimizer step
  int64_t epochs = 1;                       // counts where train_iters is 0
  int64_t train_iters = 0;                  // optimizer steps
  int64_t seed = 42;
  double gradient_clipping = 1;  // norm of the whole gradient; 0: none
  bool activation_checkpointing = false;

  double logits_loss_temp = 2;     // T
  double hidden_loss_mult = 0;     // 0: no hidden-state loss
  int64_t hidden_loss_layer = -2;  // Hugging Face's hidden_states index: -2 is the input of the last layer
  HiddenLossKind hidden_loss_kind = HiddenLossKind::kMse;

  bool operator==(const Recipe&) const = default;
};

// "paper": T²·KL alone over all tokens. "arctic": the later public recipe, over the assistant's tokens, with the MSE of
// the last layer's input beside it. Both: learning rate 2e-4, linear schedule, 5 % warm-up. What neither says (batch,
// length, data) keeps Recipe's defaults. Error kInvalidInput: another name.
Result<Recipe> PresetRecipe(std::string_view name);

// What `yaml` says over the preset that it names (`preset: paper`); over "arctic" if it names hidden_loss_layer and no
// preset; else over Recipe's defaults. Warnings name keys unknown (with the nearest known one) or of no effect. Errors
// kInvalidInput: "origin:line: field: what is wrong and the limit"; YAML malformed, too large or deep, or with aliases.
Result<Recipe> ParseRecipe(std::string_view yaml, const std::string& origin, std::vector<std::string>* warnings);

// Every field with its limits, for recipes that flags have changed. Error kInvalidInput names the field.
Status CheckRecipe(const Recipe& recipe, const std::string& origin);

std::string ToYaml(const Recipe& recipe);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_RECIPE_H_
