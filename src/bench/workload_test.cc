// Lengths, traces, prompts: what a load run is made of.
#include "bench/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "bench/lengths.h"
#include "bench/prompts.h"

namespace swiftkv {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;

std::string TestFile(const std::string& name, const std::string& text) {
  const std::string folder = testing::TempDir() + "swiftkv_bench_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  EXPECT_TRUE(WriteFile(folder + "/" + name, text));
  return folder + "/" + name;
}

std::string ErrorOf(const std::string& text, bool with_arrivals) {
  const auto rows = ReadLengthsFile(TestFile("wrong.csv", text), with_arrivals);
  return rows ? "none" : rows.error().message;
}

// Byte-level BPE over a to d whose words are "Ġ" and two letters; without the space a word is two tokens.
std::unique_ptr<Tokenizer> WordTokenizer() {
  nlohmann::json vocab = {{"\u0120", 0}}, merges = nlohmann::json::array();
  const std::string letters = "abcd";
  for (const char c : letters) vocab[std::string(1, c)] = vocab.size();
  for (const char c : letters) {
    vocab[fmt::format("\u0120{}", c)] = vocab.size();
    merges.push_back({"\u0120", std::string(1, c)});
  }
  for (const char c : letters) {
    for (const char d : letters) {
      vocab[fmt::format("\u0120{}{}", c, d)] = vocab.size();
      merges.push_back({fmt::format("\u0120{}", c), std::string(1, d)});
    }
  }
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json json = {
      {"version", "1.0"},
      {"added_tokens", nlohmann::json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", merges}}}};
  auto tokenizer = Tokenizer::FromJson(json.dump(), "test");
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  return std::move(*tokenizer);
}

TEST(LengthsTest, RandomLengthsStayWithinTheirRange) {
  std::set<int64_t> prompts;
  for (const RequestLengths& request : RandomLengths(500, 100, 10, 0.2, 1)) {
    prompts.insert(request.prompt_tokens);
    EXPECT_THAT(request.prompt_tokens, AllOf(Ge(80), Le(120)));
    EXPECT_THAT(request.output_tokens, AllOf(Ge(8), Le(12)));
  }
  EXPECT_EQ(prompts.size(), 41u);
  EXPECT_EQ(RandomLengths(1, 100, 10, 0, 1).front().prompt_tokens, 100);
}

TEST(LengthsTest, ReadsAzureTraces) {
  const std::string path = TestFile("azure.csv",
                                    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                                    "2023-11-16 23:59:59.5000000,4808,10\r\n"
                                    "2023-11-17 00:00:01.2500000,3180,8\r\n"
                                    "2023-11-16 23:59:58.2500000,7,1\r\n"
                                    "2023-11-16 23:59:58.3000000,7,0\r\n");
  const auto rows = ReadLengthsFile(path, true);
  ASSERT_TRUE(rows.has_value()) << rows.error().message;
  ASSERT_EQ(rows->size(), 3u);  // the row without output is left out
  EXPECT_EQ((*rows)[0].prompt_tokens, 7);
  EXPECT_EQ((*rows)[0].arrival, 0);
  EXPECT_NEAR((*rows)[1].arrival, 1.25, 1e-6);
  EXPECT_NEAR((*rows)[2].arrival, 3, 1e-6);
  EXPECT_EQ((*rows)[2].output_tokens, 8);
}

TEST(LengthsTest, ReadsLengthsWithoutTimes) {
  const auto rows = ReadLengthsFile(TestFile("lengths.csv",
                                             "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n"
                                             "3772,54,3826,69.85\n2015,156,2171,12.9\n"),
                                    false);
  ASSERT_TRUE(rows.has_value()) << rows.error().message;
  EXPECT_EQ((*rows)[1].prompt_tokens, 2015);
  EXPECT_EQ((*rows)[1].output_tokens, 156);
}

TEST(LengthsTest, WrongFilesAreSentences) {
  EXPECT_THAT(ErrorOf("a,b\n1,2\n", false), HasSubstr("no column for prompt tokens"));
  EXPECT_THAT(ErrorOf("input_tokens,output_tokens\n1,2\n", true), HasSubstr("no column for the time of arrival"));
  EXPECT_THAT(ErrorOf("input_tokens,output_tokens\n1,2\n3\n", false), HasSubstr(":3: column 2"));
  EXPECT_THAT(ErrorOf("input_tokens,output_tokens\n-1,2\n", false), HasSubstr(":2: column 1"));
  EXPECT_THAT(ErrorOf("input_tokens,output_tokens\n99999999999,2\n", false), HasSubstr("16777216"));
  EXPECT_THAT(ErrorOf("input_tokens,output_tokens,arrival\n1,2,soon\n", true), HasSubstr(":2: column 3"));
  EXPECT_THAT(ErrorOf("input_tokens,output_tokens\n", false), HasSubstr("no row"));
  EXPECT_THAT(ErrorOf("", false), HasSubstr("no row"));
  EXPECT_EQ(ReadLengthsFile("/nonexistent.csv", false).error().code, ErrorCode::kNotFound);
}

TEST(LengthsTest, TimestampsAreDatesOrSeconds) {
  EXPECT_EQ(ParseTimestamp("12.5"), 12.5);
  EXPECT_EQ(ParseTimestamp("1970-01-02 00:00:01"), 86401);
  EXPECT_EQ(ParseTimestamp("1970-01-01T01:02:03.5Z"), 3723.5);
  // Azure's traces of 2024.
  EXPECT_EQ(ParseTimestamp("1970-01-01 00:00:00.250000+00:00"), 0.25);
  EXPECT_EQ(ParseTimestamp("1970-01-01 02:00:00+01:30"), 1800);
  EXPECT_EQ(ParseTimestamp("1970-01-01 02:00:00-01:30"), 12600);
  for (const char* wrong :
       {"", "nan", "2023-11-16 00:00:00+1", "2023-11-16 00:00:00+24:00", "2023-11-16 00:00:00+01:60",
        "2023-11-16 00:00:00+-1:00", "2023-11-16 00:00:00+00:00Z+00:00", "inf", "2023-02-30 00:00:00", "2023-11-16",
        "2023-11-16 25:00:00", "2023-11-16 00:00:-1", "2023-11-16 00:00:00x"}) {
    EXPECT_EQ(ParseTimestamp(wrong), std::nullopt) << wrong;
  }
}

TEST(PromptsTest, TextsEncodeToExactlyTheirLength) {
  const auto tokenizer = WordTokenizer();
  auto maker = PromptMaker::Create(*tokenizer, 3);
  ASSERT_TRUE(maker.has_value()) << maker.error().message;
  std::set<std::string> texts;
  for (int i = 0; i < 20; ++i) {
    const std::string text = maker->MakeText(50);
    EXPECT_EQ(tokenizer->Encode(text, {}).size(), 50u) << text;
    texts.insert(text);
  }
  EXPECT_EQ(texts.size(), 20u);
  EXPECT_EQ(PromptMaker::Create(*tokenizer, 3)->MakeText(9), PromptMaker::Create(*tokenizer, 3)->MakeText(9));
}

TEST(WorkloadTest, ATraceKeepsItsTimesSpedUp) {
  const std::string path = TestFile("trace.csv",
                                    "Timestamp,Request tokens,Response tokens\n"
                                    "100,10,1\n104,9000,1\n108,20,2\n112,30,3\n116,40,4\n");
  const auto workload = MakeWorkload(
      {.dataset = WorkloadSource::kTrace, .path = path, .num_prompts = 3, .speedup = 4, .max_model_len = 100});
  ASSERT_TRUE(workload.has_value()) << workload.error().message;
  ASSERT_EQ(workload->requests.size(), 3u);
  EXPECT_EQ(workload->left_out, 1);
  EXPECT_EQ(workload->requests[1].prompt_tokens, 20);
  EXPECT_EQ(workload->requests[1].arrival, 2);
  EXPECT_EQ(workload->requests[2].arrival, 3);
  EXPECT_EQ(workload->request_rate, 1);
}

TEST(WorkloadTest, ALengthsFileIsDrawnFromWithoutRepetition) {
  std::string text = "input_len,input_tokens,output_tokens\n";
  for (int i = 1; i <= 50; ++i) text += fmt::format("0,{},1\n", i);
  const std::string path = TestFile("many.csv", text);
  const auto workload =
      MakeWorkload({.dataset = WorkloadSource::kLengthsFile, .path = path, .num_prompts = 10, .seed = 5});
  ASSERT_TRUE(workload.has_value());
  std::set<int64_t> lengths;
  for (const LoadRequest& request : workload->requests) lengths.insert(request.prompt_tokens);
  EXPECT_EQ(lengths.size(), 10u);
  EXPECT_GT(*lengths.rbegin(), 10);  // not the head
}

TEST(WorkloadTest, PromptsOfAFileAreSentAsTheyStand) {
  const std::string path = TestFile("prompts.jsonl",
                                    "{\"prompt\": \"ab cd\"}\n\n{\"prompt\": \"d\\na\", \"output_tokens\": 7}\n"
                                    "{\"prompt\": \"a\"}");
  auto workload =
      MakeWorkload({.dataset = WorkloadSource::kCustom, .path = path, .num_prompts = 2, .output_tokens = 5});
  ASSERT_TRUE(workload.has_value()) << workload.error().message;
  ASSERT_EQ(workload->requests.size(), 2u);
  const auto tokenizer = WordTokenizer();
  ASSERT_TRUE(FillWithText(*tokenizer, 1, &workload->requests));
  EXPECT_EQ(workload->requests[0].prompt, "ab cd");
  EXPECT_EQ(workload->requests[0].prompt_tokens, 3);
  EXPECT_EQ(workload->requests[0].output_tokens, 5);
  EXPECT_EQ(workload->requests[1].prompt, "d\na");
  EXPECT_EQ(workload->requests[1].output_tokens, 7);

  // Fewer rows than requests: from the first one again, as vLLM.
  const auto more =
      MakeWorkload({.dataset = WorkloadSource::kCustom, .path = path, .num_prompts = 7, .output_tokens = 5});
  ASSERT_TRUE(more.has_value()) << more.error().message;
  ASSERT_EQ(more->requests.size(), 7u);
  const auto rows = static_cast<size_t>(7 - more->repeated);
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ(more->requests[i].prompt, more->requests[i % rows].prompt) << i;
  EXPECT_EQ(workload->repeated, 0);

  for (const auto& [line, part] :
       {std::pair("[]", "wrong.jsonl:1"),
        {"{\"prompt\": 1}", "\"prompt\" must hold a text"},
        {"{\"prompt\": \"\"}", "\"prompt\" must hold a text"},
        {"\n", "there is no prompt"},
        {"{\"prompt\": \"a\", \"output_tokens\": 1.5}", "\"output_tokens\" must hold a number from 1"}}) {
    const auto wrong = ReadPromptsFile(TestFile("wrong.jsonl", line), 1);
    ASSERT_FALSE(wrong.has_value()) << line;
    EXPECT_THAT(wrong.error().message, HasSubstr(part));
  }
  EXPECT_FALSE(MakeWorkload({.dataset = WorkloadSource::kCustom, .path = path, .max_model_len = 100}));
}

TEST(WorkloadTest, NumbersOutOfRangeAreRefused) {
  EXPECT_FALSE(MakeWorkload({.num_prompts = 0}));
  EXPECT_FALSE(MakeWorkload({.prompt_tokens = 0}));
  EXPECT_FALSE(MakeWorkload({.range_ratio = 1}));
  EXPECT_FALSE(MakeWorkload({.speedup = 0}));
  EXPECT_FALSE(MakeWorkload({.arrivals = {.burstiness = -1}}));
  EXPECT_FALSE(MakeWorkload({.dataset = WorkloadSource::kTrace}));
  EXPECT_FALSE(MakeWorkload({.prompt_tokens = 100, .max_model_len = 50}));
}

}  // namespace
}  // namespace swiftkv
