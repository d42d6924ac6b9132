// swiftkv distill as a user meets it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "e2e/process.h"
#include "e2e/tiny_model.h"

namespace swiftkv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;
namespace fs = std::filesystem;

class DistillTest : public testing::Test {
 protected:
  DistillTest() : folder_(testing::TempDir() + "swiftkv_distill_" + std::to_string(getpid())) {
    fs::create_directories(folder_);
    WriteTinyModel(Path("base"));
    std::ofstream text(Path("text.jsonl"));
    for (int i = 0; i < 300; ++i) text << R"({"text": "some words that repeat, number )" << i << "\"}\n";
  }
  ~DistillTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  std::string Read(const std::string& name) const {
    std::ifstream file(Path(name), std::ios::binary);
    std::stringstream content;
    content << file.rdbuf();
    return content.str();
  }
  // Small updates in float32, from copies: a start that has much to learn.
  std::vector<std::string> Command(const std::string& output, const std::string& updates) const {
    return {"distill",
            Path("base"),
            "--data",
            Path("text.jsonl"),
            "--output",
            Path(output),
            "--train-iters",
            updates,
            "--max-length",
            "32",
            "--dtype",
            "f32",
            "--learning-rate",
            "3e-3",
            "--init",
            "reference",
            "--num-key-value-layers",
            "2",
            "--micro-batch-size",
            "2",
            "--save-every-n-steps",
            "5",
            "--eval-tokens",
            "512"};
  }
  ProcessResult Distill(const std::string& output, const std::string& updates, std::vector<std::string> more = {},
                        const ProcessOptions& options = {}) const {
    std::vector<std::string> arguments = Command(output, updates);
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunSwiftKv(arguments, options);
  }
  void ExpectRefused(const std::vector<std::string>& more, const std::string& sentence) const {
    std::vector<std::string> arguments = {"distill", Path("base"), "--data", Path("text.jsonl"), "-o", Path("refused")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProcessResult result = RunSwiftKv(arguments, {.environment = {"SWIFTKV_MAX_LENGTH=64"}});
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, HasSubstr(sentence));
    EXPECT_FALSE(fs::exists(Path("refused")));
  }
  std::string folder_;
};

TEST_F(DistillTest, TakesTheTrainersFlags) {
  const ProcessResult result = RunSwiftKv({"distill",
                                           "--model_name_or_path",
                                           Path("base"),
                                           "--output_dir",
                                           Path("out"),
                                           "--data",
                                           Path("text.jsonl"),
                                           "--max_steps",
                                           "2",
                                           "--per_device_train_batch_size",
                                           "1",
                                           "--gradient_accumulation_steps",
                                           "2",
                                           "--learning_rate",
                                           "1e-3",
                                           "--lr_scheduler_type",
                                           "constant",
                                           "--save_steps",
                                           "1",
                                           "--max-length",
                                           "32",
                                           "--init",
                                           "reference",
                                           "--eval-tokens",
                                           "64"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(Read("out/recipe.yaml"), AllOf(HasSubstr("train_iters: 2"), HasSubstr("micro_batch_size: 1"),
                                             HasSubstr("name: constant"), HasSubstr("save_every_n_steps: 1")));
  ExpectRefused({"--bf16"}, "--bf16");
}

TEST_F(DistillTest, LearnsAndWritesACheckpointWithItsCard) {
  const ProcessResult result = Distill("out", "60", {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("training on "));
  const Json report = Json::parse(result.out);
  EXPECT_EQ(report["format"], "checkpoint");
  for (const char* file : {"model.safetensors", "config.json", "README.md", "recipe.yaml", "tokenizer.json"}) {
    EXPECT_TRUE(fs::exists(Path("out/") + file)) << file;
  }
  EXPECT_THAT(Read("out/README.md"),
              AllOf(HasSubstr("60 steps"), HasSubstr("| text.jsonl | trained on, some rows held out |"),
                    HasSubstr("--init reference")));
  std::istringstream lines(Read("out.training/metrics.jsonl"));
  std::vector<double> held_out;
  int steps = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line);
    if (json.contains("held_out")) {
      held_out.push_back(json["kl"]);
    } else {
      EXPECT_EQ(json["step"], ++steps);
    }
  }
  EXPECT_EQ(steps, 60);
  ASSERT_EQ(held_out.size(), 2u);
  EXPECT_LT(held_out[1], 0.5 * held_out[0]);
  const auto answer = [&](const std::string& mode, const std::string& model) {
    return RunSwiftKv({"generate", model, "--mode", mode, "--prompt", "some words", "--max-tokens", "8", "--quiet"})
        .out;
  };
  EXPECT_EQ(answer("base", Path("out")), answer("base", Path("base")));
  EXPECT_THAT(answer("swiftkv", Path("out")), Not(IsEmpty()));
}

TEST_F(DistillTest, InterruptedAndResumedEndsWithTheSameBytes) {
  ASSERT_EQ(Distill("whole", "40", {"--format", "adapter"}).exit_code, 0);
  ProcessOptions interrupt;
  interrupt.signal_after_error = SIGINT;
  interrupt.error_text = "step 1/";
  const ProcessResult stopped = Distill("parts", "40", {"--format", "adapter"}, interrupt);
  ASSERT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("--resume"));
  EXPECT_FALSE(fs::exists(Path("parts")));

  const ProcessResult unasked = Distill("parts", "40", {"--format", "adapter"});
  EXPECT_EQ(unasked.exit_code, 2);
  EXPECT_THAT(unasked.err, HasSubstr("an unfinished run"));
  const std::string recipe = Read("parts.training/recipe.yaml");
  const ProcessResult other = Distill("parts", "40", {"--format", "adapter", "--resume", "--seed", "7"});
  EXPECT_EQ(other.exit_code, 2) << other.err;
  EXPECT_EQ(Read("parts.training/recipe.yaml"), recipe);

  const ProcessResult resumed = Distill("parts", "40", {"--format", "adapter", "--resume"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(Read("parts/model.safetensors"), Read("whole/model.safetensors"));
}

TEST_F(DistillTest, GoesOnFromAnAdapter) {
  ASSERT_EQ(Distill("first", "3", {"--format", "adapter"}).exit_code, 0);
  // As a shell completes folders, with a slash.
  const ProcessResult result = Distill("second/", "2", {"--adapter", Path("first/"), "--format", "adapter"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("n = 2"));
  EXPECT_TRUE(fs::exists(Path("second.training/metrics.jsonl")));
  EXPECT_THAT(Read("second/README.md"), HasSubstr("--output second --adapter first"));
}

// What `convert` and `distill` write for a Hugging Face base.
TEST_F(DistillTest, GoesOnFromACheckpoint) {
  ASSERT_EQ(Distill("first", "40").exit_code, 0);
  const auto distill = [&](const std::string& output, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {
        "distill", Path("first"),  "--data", Path("text.jsonl"), "-o",  Path(output), "--dtype", "f32", "--train-iters",
        "1",       "--max-length", "32",     "--eval-tokens",    "512", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunSwiftKv(arguments);
  };
  const auto kl = [](const ProcessResult& result, bool before) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const Json json = Json::parse(result.out)["held_out"]["text.jsonl"];
    return (before ? json["before_training"] : json)["kl"].get<double>();
  };
  const ProcessResult second = distill("second", {});
  EXPECT_EQ(Json::parse(second.out)["start"], "first");
  EXPECT_EQ(Json::parse(second.out)["num_key_value_layers"], 2);
  // --init leaves what the checkpoint has learnt and takes n from the command.
  const ProcessResult anew = distill("anew", {"--init", "reference", "--num-key-value-layers", "3"});
  EXPECT_THAT(anew.err, HasSubstr("--init begins anew"));
  EXPECT_EQ(Json::parse(anew.out)["num_key_value_layers"], 3);
  const ProcessResult same = distill("same", {"--init", "reference", "--num-key-value-layers", "2"});
  EXPECT_LT(kl(second, true), 0.5 * kl(same, true));
  EXPECT_THAT(Read("same/README.md"), HasSubstr("--init reference"));
  for (const char* flag : {"--num-key-value-layers", "--key-value-group-size"}) {
    const ProcessResult other = distill("other", {flag, "3"});
    EXPECT_EQ(other.exit_code, 2) << other.err;
    EXPECT_THAT(other.err, HasSubstr("first, which is trained further, has"));
  }
}

TEST_F(DistillTest, ResumeWithoutACheckpointBegins) {
  const ProcessResult result = Distill("parts", "3", {"--resume"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("no training checkpoint yet"));
  ASSERT_EQ(Distill("whole", "3").exit_code, 0);
  EXPECT_EQ(Read("parts/model.safetensors"), Read("whole/model.safetensors"));
}

TEST_F(DistillTest, FlagsAndTheRecipesFolderHold) {
  std::ofstream(Path("recipe.yaml")) << "model: {dtype: float32}\ncheckpoint: {output_dir: " << Path("named") << "}\n"
                                     << "data: {sources: [{path: " << Path("text.jsonl")
                                     << ", held_out: 0.1}, {path: " << Path("text.jsonl") << ", role: prompts}]}\n";
  std::vector<std::string> arguments = {
      "distill",       Path("base"), "--recipe", Path("recipe.yaml"), "--dtype",       "bf16", "--max-length", "32",
      "--train-iters", "1",          "--init",   "reference",         "--eval-tokens", "256"};
  const ProcessResult result = RunSwiftKv(arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("generate.count is 0"));
  EXPECT_THAT(Read("named/recipe.yaml"), HasSubstr("dtype: bfloat16"));
  EXPECT_THAT(Read("named/README.md"), Not(HasSubstr("answered by the base model")));
}

TEST_F(DistillTest, EpochsAndWarmUpRatioBeatARecipesSteps) {
  std::ofstream(Path("recipe.yaml")) << "data: {sources: [{path: " << Path("text.jsonl") << ", count: 20}]}\n"
                                     << "train_iters: 4000\nscheduler: {warmup_steps: 3}\nmicro_batch_size: 1\n";
  const ProcessResult result =
      RunSwiftKv({"distill", Path("base"), "--recipe", Path("recipe.yaml"), "--epochs", "1", "--warmup-ratio", "0",
                  "--max-length", "32", "--init", "reference", "--output", Path("out")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(Read("out/recipe.yaml"),
              AllOf(HasSubstr("train_iters: 0"), HasSubstr("warmup_ratio: 0"), Not(HasSubstr("warmup_steps"))));
  EXPECT_THAT(Read("out/README.md"), HasSubstr("| text.jsonl | trained on |"));
}

TEST_F(DistillTest, SwitchesOfARecipeAreFlagsToo) {
  const std::vector<std::string> flags = {"--mask-inputs",       "--gradient-checkpointing",
                                          "--gradient-clipping", "0.5",
                                          "--weight-decay",      "0.01",
                                          "--hidden-loss-layer", "-3"};
  const ProcessResult result = Distill("out", "1", flags);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("--hidden-loss-layer and --hidden-loss-kind have no effect"));
  EXPECT_THAT(Read("out/recipe.yaml"),
              AllOf(HasSubstr("mask_inputs: true"), HasSubstr("activation_checkpointing: true"),
                    HasSubstr("gradient_clipping: 0.5"), HasSubstr("weight_decay: 0.01"),
                    HasSubstr("hidden_loss_layer: -3"), HasSubstr("hidden_loss_mult: 0")));
  std::ofstream(Path("on.yaml")) << "data: {mask_inputs: true}\nactivation_checkpointing: true\n";
  const ProcessResult off = Distill("off", "1",
                                    {"--recipe", Path("on.yaml"), "--no-mask-inputs", "--no-activation-checkpointing",
                                     "--hidden-loss-layer", "3", "--hidden-loss-mult", "0.25"});
  ASSERT_EQ(off.exit_code, 0) << off.err;
  EXPECT_THAT(off.err, Not(HasSubstr("have no effect")));
  EXPECT_THAT(Read("off/recipe.yaml"),
              AllOf(HasSubstr("mask_inputs: false"), HasSubstr("activation_checkpointing: false"),
                    HasSubstr("hidden_loss_layer: 3"), HasSubstr("hidden_loss_mult: 0.25")));
  ExpectRefused({"--gradient-clipping", "-1"}, "gradient_clipping");
  EXPECT_EQ(RunSwiftKv({"distill"}, {.environment = {"SWIFTKV_MASK_INPUTS=perhaps"}}).exit_code, 2);
}

TEST_F(DistillTest, TrainsOnWhatTheBaseModelWrites) {
  const ProcessResult result = Distill("out", "2", {"--generate", "12", "--generate-max-tokens", "8"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(Read("out.training/teacher.jsonl"));
  int rows = 0;
  for (std::string line; std::getline(lines, line);) rows += Json::parse(line).contains("text") ? 1 : 0;
  EXPECT_EQ(rows, 12);
  EXPECT_THAT(Read("out/README.md"),
              HasSubstr("| teacher.jsonl | trained on, some rows held out | the base model's own words |"));
  EXPECT_THAT(Read("out/recipe.yaml"), AllOf(HasSubstr("count: 12"), Not(HasSubstr("teacher.jsonl"))));
}

TEST_F(DistillTest, RefusesWithASentence) {
  ExpectRefused({"--data", Path("absent.txt")}, "absent.txt");
  ExpectRefused({"--recipe", Path("absent.yaml")}, "absent.yaml");
  ExpectRefused({"--num-key-value-layers", "4"}, "nothing to distill");
  ExpectRefused({"--num-key-value-layers", "9"}, "must be 1 to 4");
  ExpectRefused({"--learning-rate", "-1"}, "learning_rate");
  ExpectRefused({"--max-length", "4096"}, "512 positions");
  ExpectRefused({"--prompts", Path("text.jsonl")}, "--prompts needs --generate");
  std::ofstream(Path("bad.yaml")) << "micro_batch_size: many\n";
  ExpectRefused({"--recipe", Path("bad.yaml")}, "micro_batch_size");
  std::ofstream(Path("bad.jsonl")) << "not json\n";
  ExpectRefused({"--data", Path("bad.jsonl")}, "bad.jsonl");
}

TEST_F(DistillTest, UnknownRecipeKeysAreNamedInAWarning) {
  std::ofstream(Path("recipe.yaml")) << "learning_rat: 3\n";
  const ProcessResult result = Distill("out", "1", {"--recipe", Path("recipe.yaml")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("learning_rat"), HasSubstr("recipe.yaml")));
}

}  // namespace
}  // namespace swiftkv
