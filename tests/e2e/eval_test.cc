// swiftkv eval as a user meets it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
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

class EvalTest : public testing::Test {
 protected:
  EvalTest() : folder_(testing::TempDir() + "swiftkv_eval_" + std::to_string(getpid())) {
    std::filesystem::create_directories(folder_);
    WriteTinyModel(Path("base"));
    WriteTinyModel(Path("adapter"), {.swiftkv = true, .adapter_only = true});
    std::ofstream(Path("text.txt")) << "Some text that both models read, word for word, and then a little more of it.";
  }
  ~EvalTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  std::string Read(const std::string& name) const {
    std::ostringstream content;
    content << std::ifstream(Path(name)).rdbuf();
    return content.str();
  }
  ProcessResult Eval(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"eval", Path("base")});
    return RunSwiftKv(arguments);
  }
  ProcessResult EvalSets(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--adapter", Path("adapter"), "--data",
                                       SWIFTKV_SOURCE_DIR "/tests/golden/eval/sets", "--max-gen-toks", "8"});
    return Eval(arguments);
  }
  // What fidelity of the text says under more flags.
  Json Compare(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--tasks", "fidelity", "--text", Path("text.txt"), "--json"});
    const ProcessResult result = Eval(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? Json::parse(result.out)["comparison"] : Json();
  }
  std::string folder_;
};

Json OfText(const Json& comparison, const char* model, const char* figure) {
  return comparison[model]["fidelity text.txt"]["all"][figure];
}

TEST_F(EvalTest, AllSevenSideBySide) {
  const ProcessResult result = EvalSets({"--limit", "2", "--output-path", Path("out"), "--log-samples"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"ARC-Challenge", "Winogrande", "HellaSwag", "TruthfulQA", "MMLU", "MMLU-CoT", "GSM8K",
                           "base", "adapter", "difference", "McNemar p"}) {
    EXPECT_THAT(result.out, HasSubstr(part));
  }
  for (const char* variant : {"base", "adapter"}) {
    const Json json = Json::parse(Read(std::string("out/results_") + variant + ".json"));
    EXPECT_EQ(json["n-samples"]["winogrande"]["effective"], 2);
    EXPECT_TRUE(json["results"]["gsm8k_cot_llama_3.1_instruct"].contains("exact_match_stderr,strict-match"));
    EXPECT_EQ(json["swiftkv"]["model_sha256"][variant].get<std::string>().size(), 64u);
    std::istringstream samples(Read(std::string("out/samples_hellaswag_") + variant + ".jsonl"));
    std::string sample;
    std::getline(samples, sample);
    EXPECT_THAT(Json::parse(sample)["arguments"]["gen_args_0"]["arg_0"].get<std::string>(), Not(IsEmpty()));
  }
  EXPECT_THAT(Read("out/report.md"), HasSubstr("| add_bos_token | false |"));
  EXPECT_THAT(Read("out/report.html"), HasSubstr("</html>"));
}

TEST_F(EvalTest, TakesLmEvalsNamesAndFlags) {
  const ProcessResult result =
      EvalSets({"--tasks", "gsm8k_cot_llama_3.1_instruct", "--limit", "1", "--batch_size", "auto", "--num_fewshot", "8",
                "--apply_chat_template", "--fewshot_as_multiturn", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(Json::parse(result.out)["settings"]["tasks"].contains("gsm8k_cot_llama_3.1_instruct"));
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--tasks", "gsm8k", "--num_fewshot", "5"}, "--num-fewshot 5: --protocol card fixes how gsm8k"},
      {{"--tasks", "winogrande", "--apply_chat_template"}, "winogrande is asked, without a chat template"},
      {{"--tasks", "winogrande", "--fewshot_as_multiturn"}, "with its shots in one text"},
      {{"--tasks", "mmlu_llama_3.1_instruct", "--protocol", "leaderboard"}, "belongs to --protocol card"}};
  for (const auto& [arguments, sentence] : cases) {
    const ProcessResult refused = EvalSets(arguments);
    EXPECT_EQ(refused.exit_code, 2) << sentence;
    EXPECT_THAT(refused.err, HasSubstr(sentence));
  }
}

TEST_F(EvalTest, ATaskNamedTwiceCountsOnce) {
  const ProcessResult result = EvalSets({"--tasks", "winogrande,winogrande,gsm8k,gsm8k_cot_llama_3.1_instruct",
                                         "--limit", "1", "--output-path", Path("out")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(Read("out/report.md"), HasSubstr("| Winogrande | GSM8K | Avg |"));
}

TEST_F(EvalTest, RuleOfTruthfulqaIsInTheSettings) {
  const ProcessResult result =
      EvalSets({"--tasks", "truthfulqa_mc2", "--limit", "1", "--truthfulqa-labels", "leading", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(Json::parse(result.out)["settings"]["truthfulqa_labels"], "leading");
}

TEST_F(EvalTest, GoesOnFromResponses) {
  const std::vector<std::string> arguments = {"--tasks", "winogrande", "--output-path", Path("out"), "--json"};
  const ProcessResult first = EvalSets(arguments);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  std::vector<std::string> again = arguments;
  again.emplace_back("--resume");
  const ProcessResult second = EvalSets(again);
  ASSERT_EQ(second.exit_code, 0) << second.err;
  const Json a = Json::parse(first.out);
  const Json b = Json::parse(second.out);
  EXPECT_EQ(a["comparison"], b["comparison"]);
  EXPECT_EQ(b["settings"]["tasks"]["winogrande"]["base"]["resumed_documents"], 3);
}

// Without --resume the rows of an earlier run make way, and a run that got no row takes the place of nothing.
TEST_F(EvalTest, KeepsResponsesOfAnEarlierRun) {
  const std::vector<std::string> arguments = {"--tasks", "winogrande", "--output-path", Path("out"), "--json"};
  const ProcessResult first = EvalSets(arguments);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.err, IsEmpty());
  const std::string rows = Read("out/responses_winogrande_base.jsonl");
  const ProcessResult second = EvalSets(arguments);
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_EQ(Read("out/responses_winogrande_base.previous.jsonl"), rows);
  EXPECT_EQ(std::count(second.err.begin(), second.err.end(), '\n'), 1) << second.err;
  EXPECT_THAT(second.err, AllOf(HasSubstr("out/responses_winogrande_base.previous.jsonl"), HasSubstr("--resume")));

  std::ofstream(Path("out/responses_winogrande_base.jsonl")) << rows.substr(0, rows.find('\n') + 1);
  const ProcessResult third = EvalSets(arguments);
  ASSERT_EQ(third.exit_code, 0) << third.err;
  EXPECT_EQ(Read("out/responses_winogrande_base.previous.jsonl"), rows);
}

// The base model answers once; a second adapter joins the table later, and nothing that is known is asked again.
TEST_F(EvalTest, SeveralAdaptersAgainstOneBase) {
  WriteTinyModel(Path("second"), {.swiftkv = true, .adapter_only = true});
  const std::vector<std::string> both = {"--adapter",     Path("second") + "/", "--tasks", "winogrande,gsm8k",
                                         "--output-path", Path("out"),          "--json"};
  const ProcessResult together = EvalSets(both);
  ASSERT_EQ(together.exit_code, 0) << together.err;
  const Json json = Json::parse(together.out);
  ASSERT_TRUE(json["comparison"].contains("adapter"));
  ASSERT_TRUE(json["comparison"].contains("second"));
  EXPECT_EQ(json["settings"]["adapter"]["second"], Path("second") + "/");

  const ProcessResult alone = EvalSets({"--tasks", "winogrande,gsm8k", "--output-path", Path("alone"), "--json"});
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_EQ(Json::parse(alone.out)["comparison"]["adapter"], json["comparison"]["adapter"]);
  std::vector<std::string> later = both;
  later[5] = Path("alone");
  later.emplace_back("--resume");
  const ProcessResult joined = EvalSets(later);
  ASSERT_EQ(joined.exit_code, 0) << joined.err;
  const Json of_joined = Json::parse(joined.out);
  EXPECT_EQ(of_joined["comparison"], json["comparison"]);
  EXPECT_EQ(of_joined["settings"]["tasks"]["winogrande"]["base"]["resumed_documents"], 3);
  EXPECT_EQ(of_joined["settings"]["tasks"]["winogrande"]["adapter"]["resumed_documents"], 3);
  EXPECT_EQ(of_joined["settings"]["tasks"]["winogrande"]["second"]["resumed_documents"], 0);

  const ProcessResult table =
      EvalSets({"--adapter", Path("second"), "--tasks", "perplexity,fidelity", "--text", Path("text.txt")});
  ASSERT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, AllOf(HasSubstr("adapter"), HasSubstr("second")));
}

// What only a later model or task would find out is said before the first one answers.
TEST_F(EvalTest, LooksAheadBeforeItAsks) {
  const ProcessResult typo =
      Eval({"--adapter", Path("adapter"), "--adapter", Path("typo"), "--data",
            SWIFTKV_SOURCE_DIR "/tests/golden/eval/sets", "--tasks", "gsm8k", "--output-path", Path("out")});
  EXPECT_EQ(typo.exit_code, 2);
  EXPECT_THAT(typo.err, HasSubstr(Path("typo")));
  EXPECT_FALSE(std::filesystem::exists(Path("out/responses_gsm8k_cot_llama_3.1_instruct_base.jsonl")));

  std::filesystem::remove_all(Path("base"));
  WriteTinyModel(Path("base"), {.chat_template = false});
  const ProcessResult silent = EvalSets({"--tasks", "winogrande,gsm8k", "--output-path", Path("out")});
  EXPECT_EQ(silent.exit_code, 2);
  EXPECT_THAT(silent.err, HasSubstr("the model has no chat template"));
  EXPECT_FALSE(std::filesystem::exists(Path("out/responses_winogrande_base.jsonl")));
}

TEST_F(EvalTest, ResponsesThroughAnotherChatTemplateAreRefused) {
  std::vector<std::string> arguments = {"--tasks", "gsm8k,winogrande", "--output-path", Path("out"), "--json"};
  ASSERT_EQ(EvalSets(arguments).exit_code, 0);
  std::ofstream(Path("other.jinja")) << "{% for message in messages %}{{ message['content'] }}{% endfor %}";
  arguments.insert(arguments.end(), {"--resume", "--chat-template", Path("other.jinja")});
  const ProcessResult refused = EvalSets(arguments);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("gsm8k_cot_llama_3.1_instruct_base.jsonl: its responses are of another run"));
  arguments[1] = "winogrande";
  const ProcessResult untouched = EvalSets(arguments);
  ASSERT_EQ(untouched.exit_code, 0) << untouched.err;
  const Json settings = Json::parse(untouched.out)["settings"];
  EXPECT_EQ(settings["tasks"]["winogrande"]["base"]["resumed_documents"], 3);
  EXPECT_EQ(settings["chat_template_sha256"].get<std::string>().size(), 64u);
}

TEST_F(EvalTest, PerplexityAndFidelityOfAnyText) {
  const ProcessResult result =
      Eval({"--adapter", Path("adapter"), "--tasks", "perplexity,fidelity", "--text", Path("text.txt")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("Perplexity"), HasSubstr("Fidelity to base"), HasSubstr("text.txt"), HasSubstr("0-127")));
}

// A smaller cache is compared with the weights' own: of base too, with or without an adapter.
TEST_F(EvalTest, FidelityOfACache) {
  const Json wide = Compare({"--adapter", Path("adapter")});
  const Json narrow = Compare({"--adapter", Path("adapter"), "--kv-cache-dtype", "int8"});
  EXPECT_FALSE(wide.contains("base"));
  EXPECT_NE(OfText(wide, "adapter", "mean_kl"), OfText(narrow, "adapter", "mean_kl"));
  EXPECT_GT(OfText(narrow, "base", "mean_kl"), 0);
  EXPECT_EQ(Compare({"--kv-cache-dtype", "int8"})["base"], narrow["base"]);
}

// Weights of another precision are compared with base in its own.
TEST_F(EvalTest, FidelityOfWeights) {
  WriteTinyModel(Path("second"), {.swiftkv = true, .adapter_only = true});
  const Json own = Compare({"--adapter", Path("adapter"), "--quantization", "none"});
  const Json small = Compare({"--adapter", Path("adapter"), "--adapter", Path("second"), "--quantization", "q8_0"});
  EXPECT_FALSE(own.contains("base"));
  EXPECT_EQ(OfText(own, "adapter", "base_cross_entropy"), OfText(small, "adapter", "base_cross_entropy"));
  EXPECT_NE(OfText(own, "adapter", "mean_kl"), OfText(small, "adapter", "mean_kl"));
  EXPECT_GT(OfText(small, "base", "mean_kl"), 0);
  EXPECT_EQ(small["adapter"], small["second"]);
  EXPECT_EQ(Compare({"--quantization", "q8_0"})["base"], small["base"]);
}

TEST_F(EvalTest, SaysWhatHasNoEffect) {
  const std::vector<std::string> arguments = {
      "--tasks",         "winogrande", "--limit",       "1", "--text", Path("text.txt"),
      "--window-tokens", "64",         "--text-tokens", "9"};
  const ProcessResult result = EvalSets(arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("--text has no effect: --tasks does not name perplexity or fidelity"),
                                HasSubstr("--window-tokens has no effect: --tasks does not name fidelity"),
                                HasSubstr("--text-tokens has no effect")));
}

TEST_F(EvalTest, SaysWhatIsMissing) {
  const auto expect_refused = [&](const std::vector<std::string>& arguments, const std::string& sentence) {
    const ProcessResult result = Eval(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, AllOf(StartsWith("swiftkv: "), HasSubstr(sentence)));
  };
  expect_refused({"--tasks", "gsm8k"}, "task gsm8k needs --data DIR");
  expect_refused({"--data", Path("none"), "--tasks", "gsm8k"}, Path("none") + "/gsm8k/test.jsonl");
  expect_refused({"--tasks", "perplexity"}, "perplexity and fidelity need --text FILE");
  expect_refused({"--tasks", "fidelity", "--text", Path("text.txt"), "--quantization", "gguf"},
                 "fidelity compares SwiftKV with its base model");
  expect_refused({"--adapter", Path("adapter"), "--adapter", Path("adapter") + "/", "--tasks", "fidelity", "--text",
                  Path("text.txt")},
                 "results are named after the folder, and adapter is taken already");
  expect_refused({"--tasks", "boolq"}, "boolq");
  expect_refused({"--tasks", "gsm8k", "--log-samples"}, "--log-samples needs --output-path DIR");
  expect_refused({"--tasks", "gsm8k", "--resume"}, "--resume needs --output-path DIR");
  std::filesystem::create_directories(Path("b"));
  std::ofstream(Path("b/text.txt")) << "Another text of the same name.";
  expect_refused({"--tasks", "perplexity", "--text", Path("text.txt"), "--text", Path("b/text.txt")},
                 "results are named after the file, and text.txt is taken already");
}

}  // namespace
}  // namespace swiftkv
