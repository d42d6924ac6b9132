// swiftkv convert as a user meets it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "e2e/process.h"
#include "e2e/tiny_model.h"

namespace swiftkv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using Json = nlohmann::json;

class ConvertTest : public testing::Test {
 protected:
  ConvertTest() : folder_(testing::TempDir() + "swiftkv_convert_" + std::to_string(getpid())) {
    std::filesystem::create_directories(folder_);
    WriteTinyModel(Path("base"));
  }
  ~ConvertTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  ProcessResult Convert(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"convert", Path("base"), "--calibration-tokens", "2048", "--quiet"});
    return RunSwiftKv(arguments);
  }
  // Tokens and log-probabilities of an answer.
  static Json Answer(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "generate");
    arguments.insert(arguments.end(), {"--prompt", "hello there", "--max-tokens", "12", "--logprobs", "2", "--json"});
    const ProcessResult result = RunSwiftKv(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    Json json = result.exit_code == 0 ? Json::parse(result.out) : Json();
    for (const char* own : {"timings", "model", "seed"}) json.erase(own);
    return json;
  }
  void ExpectRefused(const std::vector<std::string>& arguments, const std::string& sentence) const {
    const ProcessResult result = Convert(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, AllOf(StartsWith("swiftkv: "), HasSubstr(sentence)));
  }
  std::string folder_;
};

TEST_F(ConvertTest, TeacherOfACheckpointIsTheBase) {
  const ProcessResult result = Convert({"-o", Path("out"), "--num-key-value-layers", "2", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json report = Json::parse(result.out);
  EXPECT_EQ(report["num_key_value_layers"], 2);
  EXPECT_EQ(report["format"], "checkpoint");
  EXPECT_GT(report["calibration"]["tokens"], 0);
  EXPECT_GT(report["skipped_prefill_share"], 0.2);
  EXPECT_LT(report["quality"]["kl"], 10);
  EXPECT_EQ(Answer({Path("out"), "--mode", "base"}), Answer({Path("base")}));
  EXPECT_THAT(RunSwiftKv({"inspect", Path("out")}).out, HasSubstr("n = 2, g = 1"));
  // What was converted is converted anew from its teacher.
  const ProcessResult again =
      RunSwiftKv({"convert", Path("out"), "-o", Path("again"), "--init", "reference", "--skip", "0.25", "--quiet"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(Answer({Path("again"), "--mode", "base"}), Answer({Path("base")}));
}

TEST_F(ConvertTest, TeacherOfAFloat16CheckpointIsTheBase) {
  std::filesystem::remove_all(Path("base"));
  WriteTinyModel(Path("base"), {.float16 = true});
  ASSERT_EQ(Convert({"-o", Path("out"), "--init", "reference"}).exit_code, 0);
  for (const std::string dtype : {"bf16", "f32"}) {
    EXPECT_EQ(Answer({Path("out"), "--mode", "base", "--dtype", dtype}), Answer({Path("base"), "--dtype", dtype}));
  }
}

TEST_F(ConvertTest, AdapterOfAText) {
  std::ofstream text(Path("text.jsonl"));
  for (int i = 0; i < 200; ++i) text << R"({"text": "some words that repeat, number )" << i << "\"}\n";
  text.close();
  const ProcessResult result = Convert({"-o", Path("out"), "--format", "adapter", "--calibrate", Path("text.jsonl"),
                                        "--key-value-group-size", "2", "--skip", "0.5"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("n = 2, g = 2"), HasSubstr("perplexity"), HasSubstr("peak memory")));
  EXPECT_FALSE(Answer({Path("base"), "--adapter", Path("out")}).empty());
  EXPECT_TRUE(std::filesystem::exists(Path("out/README.md")));
}

TEST_F(ConvertTest, LinesThatAreNoJsonObjectsOfTextAreRefused) {
  const auto refused = [&](const std::string& line, const std::string& sentence) {
    std::ofstream(Path("text.jsonl")) << line << "\n";
    ExpectRefused({"-o", Path("out"), "--calibrate", Path("text.jsonl")}, "text.jsonl:1: " + sentence);
    ExpectRefused({"-o", Path("out"), "--init", "reference", "--held-out", Path("text.jsonl")},
                  "text.jsonl:1: " + sentence);
  };
  refused("{\"text\": " + std::string(100000, '['), "JSON nested");
  refused("{\"text\": \"" + std::string(16 << 20, 'a') + "\"}", "a line of 16777228 bytes");
  refused("{\"text", "not valid JSON");
  refused("{\"texts\": \"a\"}", "not a JSON object with \"messages\" or \"text\"");
}

TEST_F(ConvertTest, CalibratesOnFilesOfOneSequenceEach) {
  std::vector<std::string> arguments = {"-o", Path("out"), "--format", "adapter", "--json", "--calibrate"};
  for (int i = 0; i < 4; ++i) {
    arguments.push_back(Path(std::to_string(i) + ".txt"));
    std::ofstream text(arguments.back());
    for (int line = 0; line < 20; ++line) text << "Line " << line << " of text " << i << ", which is short.\n";
  }
  const ProcessResult four = Convert(arguments);
  ASSERT_EQ(four.exit_code, 0) << four.err;
  const Json report = Json::parse(four.out);
  EXPECT_EQ(report["calibration"]["tokens"], 3 * 512);

  const ProcessResult one = Convert({"-o", Path("one"), "--calibrate", Path("0.txt")});
  EXPECT_EQ(one.exit_code, 2);
  EXPECT_THAT(one.err, AllOf(HasSubstr("0.txt: too little text"), HasSubstr("--calibration-tokens 1024 or more")));
  const ProcessResult measured =
      Convert({"-o", Path("one"), "--calibrate", Path("0.txt"), "--held-out", Path("1.txt")});
  EXPECT_EQ(measured.exit_code, 0) << measured.err;
}

TEST_F(ConvertTest, WritesItsTextWithoutALongOpeningOfChats) {
  std::ofstream(Path("base/chat_template.jinja"))
      << std::string(600, 'a') << "{% for m in messages %}{{ m['content'] }}{% endfor %}";
  const ProcessResult result = Convert({"-o", Path("out"), "--num-key-value-layers", "2", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(Json::parse(result.out)["text"], HasSubstr("that the base model wrote"));
}

TEST_F(ConvertTest, HeldOutTextsOfOneNameAreToldApart) {
  std::vector<std::string> arguments = {"-o", Path("out"), "--init", "reference", "--json", "--held-out"};
  for (const std::string folder : {"x", "y"}) {
    std::filesystem::create_directory(Path(folder));
    std::ofstream text(Path(folder + "/text.txt"));
    for (int i = 0; i < 50; ++i) text << "some words of " << folder << " that repeat, number " << i << "\n\n";
    arguments.push_back(Path(folder + "/text.txt"));
  }
  const ProcessResult result = Convert(arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json kinds = Json::parse(result.out)["kinds"];
  EXPECT_EQ(kinds.size(), 2u);
  EXPECT_TRUE(kinds.contains("x/text.txt") && kinds.contains("y/text.txt")) << kinds;
}

TEST_F(ConvertTest, AnAdapterBecomesACheckpoint) {
  // Neither the layers nor the tensors that a conversion without flags would make.
  ASSERT_EQ(Convert({"-o", Path("adapter"), "--format", "adapter", "--skip", "0.25", "--init", "reference"}).exit_code,
            0);
  const ProcessResult merged =
      Convert({"-o", Path("merged"), "--adapter", Path("adapter"), "--format", "checkpoint", "--json"});
  ASSERT_EQ(merged.exit_code, 0) << merged.err;
  const Json report = Json::parse(merged.out);
  EXPECT_EQ(report["init"], "adapter");
  EXPECT_EQ(report["adapter"], Path("adapter"));
  EXPECT_EQ(report["num_key_value_layers"], 3);
  EXPECT_EQ(Answer({Path("merged")}), Answer({Path("base"), "--adapter", Path("adapter")}));
  EXPECT_EQ(Answer({Path("merged"), "--mode", "base"}), Answer({Path("base")}));

  // A flag beats the variable of one that excludes it.
  const ProcessResult fresh =
      RunSwiftKv({"convert", Path("base"), "-o", Path("fresh"), "--init", "reference", "--quiet", "--json"},
                 {.environment = {"SWIFTKV_ADAPTER=" + Path("adapter")}});
  ASSERT_EQ(fresh.exit_code, 0) << fresh.err;
  EXPECT_EQ(Json::parse(fresh.out)["init"], "reference");

  const ProcessResult quantized =
      Convert({"-o", Path("int8"), "--adapter", Path("adapter"), "--format", "adapter", "--quantization", "int8"});
  EXPECT_EQ(quantized.exit_code, 0) << quantized.err;
  EXPECT_THAT(quantized.out, AllOf(HasSubstr("the tensors of " + Path("adapter")), HasSubstr("adapter, INT8")));
  EXPECT_FALSE(Answer({Path("base"), "--adapter", Path("int8")}).empty());

  ExpectRefused({"-o", Path("none"), "--adapter", Path("base")}, Path("base"));
  ExpectRefused({"-o", Path("none"), "--adapter", Path("nowhere")}, "nowhere");
  ExpectRefused({"-o", Path("none"), "--adapter", Path("adapter"), "--skip", "0.5"}, "--adapter");
}

TEST_F(ConvertTest, QuantizedCheckpointsAnswer) {
  ASSERT_EQ(Convert({"-o", Path("int8"), "--num-key-value-layers", "2", "--quantization", "int8"}).exit_code, 0);
  EXPECT_THAT(RunSwiftKv({"inspect", Path("int8")}).out, HasSubstr("I8 "));
  // From the folder's own bits the answers are those of its values in BF16.
  EXPECT_EQ(Answer({Path("int8"), "--quantization", "gguf"}), Answer({Path("int8"), "--quantization", "none"}));
  EXPECT_FALSE(Answer({Path("int8"), "--quantization", "int8"}).empty());
  ASSERT_EQ(Convert({"-o", Path("adapter"), "--format", "adapter", "--quantization", "int8"}).exit_code, 0);
  EXPECT_FALSE(Answer({Path("base"), "--adapter", Path("adapter")}).empty());
  ASSERT_EQ(Convert({"-o", Path("fp8"), "--num-key-value-layers", "2", "--quantization", "fp8"}).exit_code, 0);
  EXPECT_THAT(RunSwiftKv({"inspect", Path("fp8")}).out, HasSubstr("F8_E4M3"));
  for (const std::string mode : {"swiftkv", "base"}) {
    EXPECT_FALSE(Answer({Path("fp8"), "--mode", mode}).empty());
  }
  ExpectRefused({"-o", Path("int4"), "--quantization", "int4"}, "48 input features");
  ExpectRefused({"-o", Path("int3"), "--quantization", "int3"}, "--quantization");
  std::filesystem::resize_file(Path("int8/model.safetensors"),
                               std::filesystem::file_size(Path("int8/model.safetensors")) - 2);
  const ProcessResult cut = RunSwiftKv({"generate", Path("int8"), "--prompt", "a"});
  EXPECT_EQ(cut.exit_code, 2) << cut.err;
}

TEST_F(ConvertTest, RefusesWithASentence) {
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "9"}, "must be 1 to 4");
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "x"}, "a number of layers or auto");
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "1", "--key-value-group-size", "2"}, "does not divide");
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "auto"}, "--max-kl");
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "2", "--max-kl", "0.1"}, "--max-kl needs");
  ExpectRefused({"-o", Path("out"), "--max-kl", "0.1"}, "--max-kl needs");
  ExpectRefused({"-o", Path("out"), "--held-out-tokens", "64"}, "--held-out-tokens requires --held-out");
  ExpectRefused({"-o", Path("out"), "--calibrate", Path("absent.txt")}, "no such file");
  ExpectRefused({"-o", Path("base"), "--overwrite"}, "is the input model");
  std::filesystem::create_directory(Path("full"));
  std::ofstream(Path("full/file")) << "x";
  ExpectRefused({"-o", Path("full")}, "not empty");
  EXPECT_FALSE(std::filesystem::exists(Path("out")));
}

// The weights can't be loaded, but what the flags ask for is looked at first.
TEST_F(ConvertTest, WhatFlagsNameIsCheckedBeforeTheWeights) {
  std::fstream weights(Path("base/model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
  weights.seekp(-4, std::ios::end);
  weights << "\xff\xff\xff\xff";  // a NaN
  weights.close();
  ExpectRefused({"-o", Path("out")}, "NaN");
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "9"}, "must be 1 to 4");
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "x"}, "a number of layers or auto");
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "4"}, "nothing to skip");
  ExpectRefused({"-o", Path("out"), "--skip", "1"}, "must be 1 to 4");
  ExpectRefused({"-o", Path("out"), "--num-key-value-layers", "auto", "--max-kl", "1", "--key-value-group-size", "4"},
                "leaves no layer");
  ExpectRefused({"-o", Path("out"), "--calibrate", Path("absent.txt")}, "absent.txt: no such file");
  ExpectRefused({"-o", Path("out"), "--held-out", Path("absent.txt")}, "absent.txt: no such file");
  ExpectRefused({"-o", Path("base/config.json/out")}, "config.json is no folder");
}

TEST_F(ConvertTest, WeightsThatDoNotFitTheMemoryAreRefused) {
  Json config = Json::parse(std::ifstream(Path("base/config.json")));
  config["hidden_size"] = 1 << 18;
  config["intermediate_size"] = 1 << 20;
  std::ofstream(Path("base/config.json")) << config;
  std::ofstream(Path("text.txt")) << "some words";
  EXPECT_THAT(Convert({"-o", Path("out")}).err, HasSubstr(Path("base") + ": the weights need "));
  const ProcessResult distilled = RunSwiftKv({"distill", Path("base"), "-o", Path("out"), "--data", Path("text.txt"),
                                              "--max-length", "32", "--device", "cpu"});
  EXPECT_THAT(distilled.err, HasSubstr(Path("base") + ": the weights need "));
  EXPECT_FALSE(std::filesystem::exists(Path("out.training")));
}

TEST_F(ConvertTest, AutoFindsTheFewestLayers) {
  const ProcessResult result =
      Convert({"-o", Path("out"), "--num-key-value-layers", "auto", "--max-kl", "1000", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(Json::parse(result.out)["num_key_value_layers"], 1);
  ExpectRefused(
      {"-o", Path("none"), "--num-key-value-layers", "auto", "--max-kl", "1e-12", "--key-value-group-size", "3"},
      "stays within");
}

TEST_F(ConvertTest, AutoStaysWithinTheKlOfAMiddleNumberOfLayers) {
  const auto kl = [](const ProcessResult& result) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? Json::parse(result.out)["quality"]["kl"].get<double>() : 0;
  };
  const double fewer = kl(Convert({"-o", Path("one"), "--num-key-value-layers", "1", "--json"}));
  const double middle = kl(Convert({"-o", Path("two"), "--num-key-value-layers", "2", "--json"}));
  ASSERT_GT(fewer, middle);
  const double allowed = middle * (1 + 1e-9);
  const ProcessResult found =
      Convert({"-o", Path("auto"), "--num-key-value-layers", "auto", "--max-kl", Json(allowed).dump(), "--json"});
  EXPECT_LE(kl(found), allowed);
  EXPECT_EQ(Json::parse(found.out)["num_key_value_layers"], 2);
  // What is written is that student, not the last one tried.
  EXPECT_THAT(RunSwiftKv({"inspect", Path("auto")}).out, HasSubstr("n = 2, g = 1"));
  EXPECT_EQ(Answer({Path("auto")}), Answer({Path("two")}));
}

}  // namespace
}  // namespace swiftkv
