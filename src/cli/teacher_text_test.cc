#include "cli/teacher_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/fault_injector.h"
#include "distill/test_corpus.h"
#include "model/weights.h"

namespace swiftkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Json = nlohmann::ordered_json;

ModelConfig TinyConfig() {
  ModelConfig config;
  config.vocab_size = 422;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.max_position_embeddings = 256;
  config.tie_word_embeddings = true;
  config.sliding_window.assign(2, 0);
  config.num_key_value_layers = 2;
  config.eos_token_id = {421};
  return config;
}

class TeacherTextTest : public testing::Test {
 protected:
  TeacherTextTest() {
    text_.tokenizer = LoadGoldenTokenizer("smollm", {{"<|im_start|>", 420}, {"<|im_end|>", 421}});
    text_.chat_template = ChatTemplate::Parse(TestCorpus::kChatMl, "chatml");
    std::vector<std::vector<std::string>> chats;
    for (int i = 0; i < 12; ++i) chats.push_back({fmt::format("Question {}", i), "yes", "And then?", "no"});
    chats_ = {{.path = corpus_.WriteChats("chats.jsonl", chats), .role = SourceRole::kPrompts}};
    options_.generate = {.count = 20, .max_tokens = 12};
    options_.seed = 5;
    options_.parallel = 4;
  }

  Result<TeacherText> Write(const std::vector<SourceRecipe>& sources, const std::string& name, int64_t steps = -1) {
    return WriteTeacherText(sources, weights_, text_, options_, Path(name),
                            [&](const TeacherText&) { return steps-- != 0; });
  }
  std::string Path(const std::string& name) const { return corpus_.folder.path() + "/" + name; }
  std::string Content(const std::string& name) const {
    const auto text = ReadFile(Path(name), 1 << 20);
    return text ? *text : "";
  }
  std::vector<Json> Rows(const std::string& name) const {
    std::ifstream file(Path(name));
    std::vector<Json> rows;
    for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
    return rows;
  }

  TestCorpus corpus_;
  TextModel text_;
  std::vector<SourceRecipe> chats_;
  TeacherTextOptions options_;
  Weights weights_ = *RandomWeights(TinyConfig(), 1, {.dtype = DType::kF32, .teacher = true});
};

TEST_F(TeacherTextTest, AnswersTakeTheLastAnswersPlace) {
  const auto written = Write(chats_, "out.jsonl");
  ASSERT_TRUE(written.has_value()) << written.error().message;
  EXPECT_EQ(written->rows, 20);
  EXPECT_EQ(written->found, 0);
  EXPECT_GT(written->tokens, 20);
  std::multiset<std::string> questions;
  std::set<std::string> answers;
  for (const Json& row : Rows("out.jsonl")) {
    const Json& messages = row["messages"];
    ASSERT_THAT(messages, SizeIs(4));
    EXPECT_EQ(messages[1]["content"], "yes");
    EXPECT_EQ(messages[2]["content"], "And then?");
    EXPECT_EQ(messages[3]["role"], "assistant");
    questions.insert(messages[0]["content"].get<std::string>());
    answers.insert(messages[3]["content"].get<std::string>());
  }
  EXPECT_THAT(std::set<std::string>(questions.begin(), questions.end()), SizeIs(12));
  EXPECT_LE(questions.count("Question 3"), 2u);
  EXPECT_GT(answers.size(), 18u);
  EXPECT_FALSE(std::filesystem::exists(Path("out.jsonl.partial")));

  // It is a source as any other.
  const auto data = Dataset::Open({.sources = {{.path = Path("out.jsonl")}}}, {.epochs = 1}, corpus_.text());
  ASSERT_TRUE(data);
  ASSERT_TRUE(*(*data)->Next());
  EXPECT_EQ((*data)->skipped_rows(), 0);
}

TEST_F(TeacherTextTest, TextsAreContinued) {
  const std::string texts = corpus_.WriteTexts("texts.jsonl", {"One two three four", "Five six"});
  options_.generate.count = 2;
  options_.prefix_tokens = 4;
  ASSERT_TRUE(Write({{.path = texts, .role = SourceRole::kPrompts}}, "out.jsonl"));
  std::vector<std::string> beginnings;
  for (const Json& row : Rows("out.jsonl")) {
    const std::string text = row["text"];
    EXPECT_GT(text.size(), 8u);
    beginnings.push_back(text.substr(0, 3));
  }
  EXPECT_THAT(beginnings, testing::UnorderedElementsAre("One", "Fiv"));
}

TEST_F(TeacherTextTest, RowsDoNotDependOnWhatIsWrittenBesideThem) {
  ASSERT_TRUE(Write(chats_, "four.jsonl"));
  options_.parallel = 1;
  ASSERT_TRUE(Write(chats_, "one.jsonl"));
  EXPECT_EQ(Content("four.jsonl"), Content("one.jsonl"));
  options_.seed = 6;
  ASSERT_TRUE(Write(chats_, "other.jsonl"));
  EXPECT_NE(Content("other.jsonl"), Content("one.jsonl"));
}

TEST_F(TeacherTextTest, StoppedWorkGoesOn) {
  ASSERT_TRUE(Write(chats_, "whole.jsonl"));
  const auto first = Write(chats_, "out.jsonl", 30);
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, ErrorCode::kCancelled);
  EXPECT_THAT(first.error().message, HasSubstr("of 20 answers, which are kept"));
  EXPECT_FALSE(std::filesystem::exists(Path("out.jsonl")));
  const std::string kept = Content("out.jsonl.partial");
  ASSERT_GT(kept.size(), 0u);
  // A row that was being written when the power went.
  std::ofstream(Path("out.jsonl.partial"), std::ios::app) << R"({"messages": [{"role")";
  const auto second = Write(chats_, "out.jsonl");
  ASSERT_TRUE(second.has_value()) << second.error().message;
  EXPECT_EQ(second->found, std::count(kept.begin(), kept.end(), '\n'));
  EXPECT_EQ(Content("out.jsonl"), Content("whole.jsonl"));
  // Nothing is left to do, and then more is asked for.
  EXPECT_EQ(Write(chats_, "out.jsonl")->tokens, 0);
  options_.generate.count = 25;
  EXPECT_EQ(Write(chats_, "out.jsonl")->found, 20);
  EXPECT_THAT(Rows("out.jsonl"), SizeIs(25));
  EXPECT_EQ(Content("out.jsonl").substr(0, Content("whole.jsonl").size()), Content("whole.jsonl"));
}

TEST_F(TeacherTextTest, EveryFailingCallLeavesWholeRows) {
  options_.generate = {.count = 3, .max_tokens = 3};
  ASSERT_TRUE(Write(chats_, "whole.jsonl"));
  for (int64_t call = 0;; ++call) {
    std::filesystem::remove(Path("out.jsonl"));
    std::filesystem::remove(Path("out.jsonl.partial"));
    bool failed = false;
    {
      FaultInjector faults({.failing_call = call, .error = ENOSPC, .then = Faults::kKilled});
      const bool written = Write(chats_, "out.jsonl").has_value();
      failed = faults.failed();
      EXPECT_EQ(written, !failed) << call;
    }
    const auto again = Write(chats_, "out.jsonl");
    ASSERT_TRUE(again.has_value()) << again.error().message;
    EXPECT_EQ(Content("out.jsonl"), Content("whole.jsonl")) << call;
    if (!failed) break;
    ASSERT_LT(call, 100);
  }
}

TEST_F(TeacherTextTest, OtherRowsAreNotTouched) {
  ASSERT_TRUE(Write(chats_, "out.jsonl"));
  const std::string before = Content("out.jsonl");
  options_.generate.temperature = 0.5;
  EXPECT_THAT(Write(chats_, "out.jsonl").error().message, HasSubstr("out.jsonl: it holds other rows"));
  EXPECT_EQ(Content("out.jsonl"), before);
  corpus_.folder.Write("mine.jsonl", "{\"text\": \"mine\"}\n");
  EXPECT_THAT(Write(chats_, "mine.jsonl").error().message, HasSubstr("mine.jsonl: it holds other rows"));
  corpus_.folder.Write("new.jsonl.partial", "{\"text\": \"mine\"}\n");
  EXPECT_THAT(Write(chats_, "new.jsonl").error().message, HasSubstr("new.jsonl.partial: it holds other rows"));
}

TEST_F(TeacherTextTest, HeldOutRowsAreNoPrompts) {
  std::vector<SourceRecipe> sources = chats_;
  sources[0].held_out = 6;
  ASSERT_TRUE(Write(sources, "out.jsonl"));
  std::set<std::string> questions;
  for (const Json& row : Rows("out.jsonl")) questions.insert(row["messages"][0]["content"].get<std::string>());
  EXPECT_THAT(questions, SizeIs(6));
}

TEST_F(TeacherTextTest, PromptsThatCannotBeUsedArePassedOver) {
  const std::string mixed =
      corpus_.folder.Write("mixed.jsonl",
                           "no json\n{}\n{\"messages\": 3}\n{\"messages\": []}\n{\"messages\": [3]}\n"
                           "{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}\n" +
                               Json{{"messages", {{{"role", "user"}, {"content", std::string(5000, 'x')}}}}}.dump() +
                               "\n" + Json{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}}.dump() + "\n");
  options_.generate.count = 4;
  const auto written = Write({{.path = mixed, .role = SourceRole::kPrompts}}, "out.jsonl");
  ASSERT_TRUE(written.has_value()) << written.error().message;
  EXPECT_GE(written->passed_over, 21);
  for (const Json& row : Rows("out.jsonl")) EXPECT_EQ(row["messages"][0]["content"], "Hi");

  const std::string wrong = corpus_.folder.Write("wrong.jsonl", "x\ny\n");
  EXPECT_THAT(Write({{.path = wrong, .role = SourceRole::kPrompts}}, "none.jsonl").error().message,
              HasSubstr("no row of the prompts can be used"));
  EXPECT_THAT(Write({{.path = wrong}}, "none.jsonl").error().message, HasSubstr("no source of prompts"));
}

TEST(ProgressLineTest, SaysHowLongItTakes) {
  EXPECT_EQ(ProgressLine({.rows = 30, .found = 10, .wanted = 100, .tokens = 5000, .seconds = 10}),
            "answers 30 of 100, 500 tok/s, 0:35 left");
  EXPECT_EQ(ProgressLine({.rows = 10, .found = 10, .wanted = 100}), "answers 10 of 100, 0 tok/s");
}

}  // namespace
}  // namespace swiftkv
