#include "distill/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swiftkv {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Recipe Parsed(const std::string& yaml, std::vector<std::string>* warnings = nullptr) {
  std::vector<std::string> ignored;
  auto recipe = ParseRecipe(yaml, "r.yaml", warnings == nullptr ? &ignored : warnings);
  EXPECT_TRUE(recipe.has_value()) << (recipe ? "" : recipe.error().message);
  return recipe ? *recipe : Recipe();
}

std::string ErrorOf(const std::string& yaml) {
  std::vector<std::string> warnings;
  const auto recipe = ParseRecipe(yaml, "r.yaml", &warnings);
  if (recipe) return "no error";
  EXPECT_EQ(recipe.error().code, ErrorCode::kInvalidInput);
  return recipe.error().message;
}

TEST(RecipeTest, ReadsARecipeOfArcticTraining) {
  std::vector<std::string> warnings;
  const Recipe recipe = Parsed(R"(
type: swiftkv
code: train.py
micro_batch_size: 1
gradient_accumulation_steps: 8
epochs: 2
seed: 7
logits_loss_temp: 2.5
hidden_loss_mult: 0.5
hidden_loss_layer: -3
model:
  name_or_path: org/model
  num_key_value_layers: 16
  key_value_group_size: 2
  attn_implementation: flash_attention_2
deepspeed:
  zero_optimization: {stage: 2}
  gradient_clipping: 0.5
data:
  sources:
    - plain.txt
    - type: huggingface
      name_or_path: chats.jsonl
      split: train
      sample_count: 500000
  eval_sources: [other.jsonl]
  train_eval_split: [0.99, 0.01]
  cache_dir: /tmp
  max_length: 8192
  mask_inputs: false
  pack_samples: no
  always_max_length: true
  drop_last: True
  fuse_positions_prob: 0.1
scheduler:
  name: cosine
  warmup_ratio: 0.1
optimizer:
  betas: [0.9, 0.95]
  weight_decay: 0.01
  lr: 4e-4
checkpoint:
  - type: huggingface
    save_every_n_steps: 100
    output_dir: out
eval_interval: 50
)",
                               &warnings);
  EXPECT_EQ(recipe.micro_batch_size, 1);
  EXPECT_EQ(recipe.gradient_accumulation_steps, 8);
  EXPECT_EQ(recipe.epochs, 2);
  EXPECT_EQ(recipe.seed, 7);
  EXPECT_EQ(recipe.logits_loss_temp, 2.5);
  EXPECT_EQ(recipe.hidden_loss_mult, 0.5);
  EXPECT_EQ(recipe.hidden_loss_layer, -3);
  EXPECT_EQ(recipe.model.name_or_path, "org/model");
  EXPECT_EQ(recipe.model.num_key_value_layers, 16);
  EXPECT_EQ(recipe.model.key_value_group_size, 2);
  EXPECT_EQ(recipe.gradient_clipping, 0.5);
  ASSERT_THAT(recipe.data.sources, SizeIs(3));
  EXPECT_EQ(recipe.data.sources[0], (SourceRecipe{.path = "plain.txt", .held_out = 0.01}));
  EXPECT_EQ(recipe.data.sources[1], (SourceRecipe{.path = "chats.jsonl", .count = 500000, .held_out = 0.01}));
  EXPECT_EQ(recipe.data.sources[2], (SourceRecipe{.path = "other.jsonl", .role = SourceRole::kEval}));
  EXPECT_EQ(recipe.data.max_length, 8192);
  EXPECT_FALSE(recipe.data.mask_inputs);
  EXPECT_FALSE(recipe.data.pack_samples);
  EXPECT_TRUE(recipe.data.always_max_length);
  EXPECT_TRUE(recipe.data.drop_last);
  EXPECT_EQ(recipe.data.fuse_positions_prob, 0.1);
  EXPECT_EQ(recipe.scheduler.kind, ScheduleKind::kCosine);
  EXPECT_EQ(recipe.scheduler.warmup_ratio, 0.1);
  EXPECT_EQ(recipe.optimizer.learning_rate, 4e-4);
  EXPECT_EQ(recipe.optimizer.betas[1], 0.95);
  EXPECT_EQ(recipe.optimizer.weight_decay, 0.01);
  EXPECT_EQ(recipe.checkpoint.output_dir, "out");
  EXPECT_EQ(recipe.checkpoint.save_every_n_steps, 100);
  EXPECT_EQ(recipe.eval.every_n_steps, 50);
  EXPECT_THAT(warnings, ElementsAre("r.yaml: no effect here: model.attn_implementation, data.sources[1].type, "
                                    "data.sources[1].split, data.cache_dir, checkpoint.type, code, deepspeed"));
}

TEST(RecipeTest, ReadsOurOwnKeys) {
  std::vector<std::string> warnings;
  const Recipe recipe = Parsed(R"(
train_iters: 1000
gradient_clipping: 0
activation_checkpointing: on
hidden_loss_kind: relative
model: {dtype: fp32}
data:
  sources:
    - {path: a.jsonl, weight: 2.5, held_out: 200}
    - {path: p.jsonl, role: prompts, max_rows: 10}
generate: {count: 100, max_tokens: 64, temperature: 0.7, top_p: 0.9}
scheduler: {name: constant, warmup_steps: 20, min_lr_ratio: 0.1}
checkpoint: {keep: 3}
eval: {every_n_steps: 5, tokens: 4096, sources: [unseen.txt]}
)",
                               &warnings);
  EXPECT_THAT(warnings, IsEmpty());
  EXPECT_EQ(recipe.train_iters, 1000);
  EXPECT_EQ(recipe.gradient_clipping, 0);
  EXPECT_TRUE(recipe.activation_checkpointing);
  EXPECT_EQ(recipe.hidden_loss_kind, HiddenLossKind::kRelative);
  EXPECT_EQ(recipe.model.dtype, DType::kF32);
  EXPECT_EQ(recipe.data.sources[0], (SourceRecipe{.path = "a.jsonl", .weight = 2.5, .held_out = 200}));
  EXPECT_EQ(recipe.data.sources[1], (SourceRecipe{.path = "p.jsonl", .role = SourceRole::kPrompts, .count = 10}));
  EXPECT_EQ(recipe.data.sources[2], (SourceRecipe{.path = "unseen.txt", .role = SourceRole::kEval}));
  EXPECT_EQ(recipe.generate, (GenerateRecipe{.count = 100, .max_tokens = 64, .temperature = 0.7, .top_p = 0.9}));
  EXPECT_EQ(recipe.scheduler.WarmupSteps(1000), 20);
  EXPECT_EQ(recipe.checkpoint.keep, 3);
  EXPECT_EQ(recipe.eval.tokens, 4096);
}

TEST(RecipeTest, OfSeveralCheckpointEnginesTheHuggingFaceOneCounts) {
  std::vector<std::string> warnings;
  const Recipe recipe = Parsed(
      "checkpoint:\n- {type: deepspeed, output_dir: no}\n- {type: huggingface, output_dir: out, keep: 2}\n", &warnings);
  EXPECT_EQ(recipe.checkpoint, (CheckpointRecipe{.output_dir = "out", .keep = 2}));
  EXPECT_THAT(warnings, ElementsAre("r.yaml:2: of checkpoint's 2 entries only the one of type huggingface counts",
                                    "r.yaml: no effect here: checkpoint.type"));
  EXPECT_THAT(ErrorOf("checkpoint: [{type: huggingface}, {type: huggingface}]"), HasSubstr("and no more"));
}

TEST(RecipeTest, WarmupRatioIsOfAllSteps) {
  EXPECT_EQ(SchedulerRecipe{.warmup_ratio = 0.05}.WarmupSteps(1000), 50);
  EXPECT_EQ(SchedulerRecipe{.warmup_ratio = 0.05}.WarmupSteps(1), 1);
  EXPECT_EQ(SchedulerRecipe{.warmup_ratio = 0}.WarmupSteps(1000), 0);
  EXPECT_EQ(SchedulerRecipe{.warmup_steps = 50}.WarmupSteps(10), 10);
}

TEST(RecipeTest, PresetsDifferInLossAndMask) {
  const Recipe paper = *PresetRecipe("paper");
  EXPECT_FALSE(paper.data.mask_inputs);
  EXPECT_EQ(paper.hidden_loss_mult, 0);
  const Recipe arctic = *PresetRecipe("arctic");
  EXPECT_TRUE(arctic.data.mask_inputs);
  EXPECT_EQ(arctic.hidden_loss_mult, 1);
  EXPECT_EQ(arctic.hidden_loss_layer, -2);
  EXPECT_EQ(arctic.hidden_loss_kind, HiddenLossKind::kMse);
  for (const Recipe& recipe : {paper, arctic}) {
    EXPECT_EQ(recipe.logits_loss_temp, 2);
    EXPECT_EQ(recipe.optimizer.learning_rate, 2e-4);
    EXPECT_EQ(recipe.scheduler.kind, ScheduleKind::kLinear);
    EXPECT_EQ(recipe.scheduler.warmup_ratio, 0.05);
  }
  EXPECT_THAT(PresetRecipe("best").error().message, HasSubstr("known: paper, arctic"));

  const Recipe over = Parsed("preset: paper\nhidden_loss_mult: 0.25\n");
  EXPECT_EQ(over.hidden_loss_mult, 0.25);
  EXPECT_FALSE(over.data.mask_inputs);
  EXPECT_THAT(ErrorOf("epochs: 1\npreset: worst\n"), HasSubstr("r.yaml:2: preset: there is no recipe named worst"));
}

// As ArcticTraining's published recipes say it: the weight is left to its default there, 1.
TEST(RecipeTest, ALayerWithoutAWeightKeepsItsHiddenLoss) {
  const Recipe published = Parsed("type: swiftkv\nlogits_loss_temp: 2.0\nhidden_loss_layer: -2\n");
  EXPECT_EQ(published.hidden_loss_mult, 1);
  EXPECT_EQ(published.hidden_loss_layer, -2);
  EXPECT_TRUE(published.data.mask_inputs);
  EXPECT_EQ(Parsed("hidden_loss_layer: -3\nhidden_loss_mult: 0\n").hidden_loss_mult, 0);
  EXPECT_EQ(Parsed("preset: paper\nhidden_loss_layer: -3\n").hidden_loss_mult, 0);
  EXPECT_EQ(Parsed("hidden_loss_layer:\n").hidden_loss_mult, 0);
}

TEST(RecipeTest, YamlGivesTheSameRecipeBack) {
  Recipe recipe = *PresetRecipe("arctic");
  recipe.model = {.name_or_path = "a b: #c \"d\" 'e' \x01 ü\n*x &y",
                  .num_key_value_layers = 15,
                  .key_value_group_size = 3,
                  .dtype = DType::kF32};
  recipe.data.sources = {{.path = "true", .held_out = 0.015},
                         {.path = "123", .role = SourceRole::kPrompts, .count = 9},
                         {.path = "[x", .role = SourceRole::kEval, .weight = 1.0 / 3}};
  recipe.generate = {.count = 5, .max_tokens = 6, .temperature = 0.1, .top_p = 0.3};
  recipe.optimizer = {.learning_rate = 1.2345678901234567e-7, .betas = {0.1, 0.2}, .eps = 1e-9, .weight_decay = 0.3};
  recipe.scheduler = {.kind = ScheduleKind::kCosine, .warmup_ratio = 0.1, .warmup_steps = 4, .min_lr_ratio = 0.7};
  recipe.checkpoint = {.output_dir = "- x", .save_every_n_steps = 3, .keep = 4};
  recipe.eval = {.every_n_steps = 6, .tokens = 7};
  recipe.seed = INT64_MAX;
  recipe.hidden_loss_kind = HiddenLossKind::kRelative;
  recipe.data.fuse_positions_prob = 0.1;
  std::vector<std::string> warnings;
  EXPECT_EQ(Parsed(ToYaml(recipe), &warnings), recipe) << ToYaml(recipe);
  EXPECT_THAT(warnings, IsEmpty());
  EXPECT_EQ(Parsed(ToYaml(Recipe()), &warnings), Recipe());
}

TEST(RecipeTest, UnknownKeysAreWarnedOf) {
  std::vector<std::string> warnings;
  Parsed("epochs: 2\nmicro_batchsize: 3\noptimizer:\n  learning_rat: 1\n  x: 2\nchildren: {a: {b: [1]}}\n", &warnings);
  EXPECT_THAT(warnings,
              ElementsAre("r.yaml:4: unknown key optimizer.learning_rat is passed over (the nearest known one is "
                          "learning_rate)",
                          HasSubstr("r.yaml:5: unknown key optimizer.x"),
                          "r.yaml:2: unknown key micro_batchsize is passed over (the nearest known one is "
                          "micro_batch_size)",
                          HasSubstr("r.yaml:6: unknown key children")));
}

struct Wrong {
  std::string yaml;
  std::string message;
};

class RecipeErrorTest : public testing::TestWithParam<Wrong> {};

TEST_P(RecipeErrorTest, NamesLineFieldAndLimit) { EXPECT_EQ(ErrorOf(GetParam().yaml), GetParam().message); }

INSTANTIATE_TEST_SUITE_P(
    RecipeTest, RecipeErrorTest,
    testing::Values(
        Wrong{"type: sft", "r.yaml:1: type is sft, must be swiftkv"},
        Wrong{"\nepochs: two", "r.yaml:2: epochs is two, must be a whole number from 0 to 1000000"},
        Wrong{"epochs: 1.5", "r.yaml:1: epochs is 1.5, must be a whole number from 0 to 1000000"},
        Wrong{"epochs: -1", "r.yaml:1: epochs is -1, must be a whole number from 0 to 1000000"},
        Wrong{"epochs: [1]", "r.yaml:1: epochs is a list, must be a single value"},
        Wrong{"epochs: 0", "r.yaml: epochs or train_iters must be at least 1"},
        Wrong{"seed: 9223372036854775808",
              "r.yaml:1: seed is 9223372036854775808, must be a whole number from 0 to 9223372036854775807"},
        Wrong{"model:\n  num_key_value_layers: 0",
              "r.yaml:2: model.num_key_value_layers is 0, must be a whole number from 1 to 4096"},
        Wrong{"model: x", "r.yaml:1: model is a single value, must be a map"},
        Wrong{"model: {dtype: int8}", "r.yaml:1: model.dtype must be one of: bfloat16, float32, bf16, fp32"},
        Wrong{"optimizer: {lr: nan}", "r.yaml:1: optimizer.learning_rate is nan, must be a number from 1e-12 to 10"},
        Wrong{"optimizer: {lr: inf}", "r.yaml:1: optimizer.learning_rate is inf, must be a number from 1e-12 to 10"},
        Wrong{"optimizer: {lr: 0}", "r.yaml:1: optimizer.learning_rate is 0, must be a number from 1e-12 to 10"},
        Wrong{"optimizer: {lr: 1, learning_rate: 1}",
              "r.yaml:1: optimizer.lr says the same as another key of learning_rate"},
        Wrong{"optimizer: {betas: [0.9]}", "r.yaml:1: optimizer.betas must be a list of two numbers"},
        Wrong{"optimizer:\n  betas: [0.9,\n    1]",
              "r.yaml:3: optimizer.betas[1] is 1, must be a number from 0 to 0.999999999999"},
        Wrong{"data: {sources: a}", "r.yaml:1: data.sources is a single value, must be a list"},
        Wrong{"data:\n  sources:\n  - a\n  - [b]", "r.yaml:4: data.sources[1] must be a path or a map"},
        Wrong{"data:\n  sources:\n  - count: 3", "r.yaml: data.sources[0] has no path"},
        Wrong{"data:\n  sources:\n  - path: x\n    held_out: 1.5",
              "r.yaml:4: data.sources[0].held_out must be a share below 1 or a whole number of rows"},
        Wrong{"data: {sources: [{path: \"a\\0b\"}]}",
              "r.yaml: data.sources[0].path must be at most 4096 bytes of valid UTF-8 without a zero among them"},
        Wrong{"data: {max_length: 1}", "r.yaml:1: data.max_length is 1, must be a whole number from 2 to 1048576"},
        Wrong{"data: {pack_samples: 1}", "r.yaml:1: data.pack_samples is 1, must be true or false"},
        Wrong{"checkpoint: [{}, {}]",
              "r.yaml:1: checkpoint has 2 entries; one of them, and no more, must be of type huggingface"},
        Wrong{"epochs: 1\nepochs: 2", "r.yaml:2: the key epochs stands twice"},
        Wrong{"? [a]\n: b", "r.yaml:1: a key that is no word"},
        Wrong{"a: &x 1\nb: *x", "r.yaml:2: an alias (*name); write the value out instead"},
        Wrong{"a: 1\n---\nb: 2", "r.yaml: more than one YAML document"},
        Wrong{"", "r.yaml: a recipe must be a YAML map"}, Wrong{"- a", "r.yaml: a recipe must be a YAML map"},
        Wrong{"hidden_loss_kind: [", "r.yaml:1: not valid YAML: end of sequence flow not found"}));

TEST(RecipeTest, HostileYamlIsRefused) {
  EXPECT_THAT(ErrorOf(std::string(kMaxRecipeBytes + 1, 'a')), HasSubstr("the limit is 262144"));
  EXPECT_THAT(ErrorOf("a: " + std::string(100000, '[')), HasSubstr("nested more than 16 deep"));
  EXPECT_THAT(ErrorOf("a: " + std::string(20, '[') + std::string(20, ']')), HasSubstr("nested more than 16 deep"));
  std::string many;
  for (int i = 0; i < 300; ++i) many += fmt::format("k{}: 1\n", i);
  EXPECT_THAT(ErrorOf(many), HasSubstr("r.yaml:257: a map of more than 256 keys"));
  EXPECT_THAT(ErrorOf("a: &a [b, *a]"), HasSubstr("alias"));
  std::string sources;
  for (int i = 0; i < 2000; ++i) sources += "x, ";
  EXPECT_EQ(ErrorOf("data: {sources: [" + sources + "]}"), "r.yaml: 2000 sources, the limit is 1000");
  EXPECT_EQ(ErrorOf("a: \xff"), "r.yaml: not valid UTF-8");
}

TEST(RecipeTest, CheckNamesTheField) {
  Recipe recipe;
  recipe.optimizer.learning_rate = -1;
  EXPECT_EQ(CheckRecipe(recipe, "flags").error().message,
            "flags: optimizer.learning_rate is -1, must be from 1e-12 to 10");
  recipe = {};
  recipe.data.sources = {{.path = "x", .weight = -1}};
  EXPECT_EQ(CheckRecipe(recipe, "flags").error().message,
            "flags: data.sources[0].weight is -1, must be from 0 to 1000000");
}

}  // namespace
}  // namespace swiftkv
