// `swiftkv bench` as a user meets it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "bench/scripted_server.h"
#include "e2e/process.h"
#include "e2e/tiny_model.h"

namespace swiftkv {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

class BenchCliTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new std::string(testing::TempDir() + "swiftkv_bench_cli_" + std::to_string(getpid()));
    WriteTinyModel(*folder_ + "/base");
    WriteTinyModel(*folder_ + "/adapter", {.adapter_only = true});
  }
  static void TearDownTestSuite() {
    std::filesystem::remove_all(*folder_);
    delete folder_;
  }
  static std::string Path(const std::string& name) { return *folder_ + "/" + name; }
  // `swiftkv bench NAME` on the tiny model, base and SwiftKV.
  static ProcessResult Bench(const std::string& name, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"bench", name, Path("base"), "--adapter", Path("adapter")});
    return RunSwiftKv(arguments);
  }
  static std::string* folder_;
};
std::string* BenchCliTest::folder_ = nullptr;

TEST_F(BenchCliTest, LatencyPrintsBothModes) {
  const ProcessResult result =
      Bench("latency", {"-p", "16,32", "-n", "4", "--pg", "8,2", "-d", "0,8", "-r", "2", "-o", "json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, IsEmpty());
  EXPECT_EQ(Json::parse(result.out).size(), 16u);
  const ProcessResult int8 =
      Bench("latency", {"-p", "16", "-n", "0", "-r", "1", "--no-roofline", "--kv-cache-dtype", "int8", "-o", "json"});
  ASSERT_EQ(int8.exit_code, 0) << int8.err;
  EXPECT_EQ(Json::parse(int8.out)[0]["type_k"], "I8");
}

TEST_F(BenchCliTest, LatencyTakesLlamaBenchsFlags) {
  const ProcessResult result = Bench("latency", {"-p", "0", "-n", "0", "-pg", "16,4", "-b", "2048,8", "-ub", "8", "-r",
                                                 "1", "-t", "1", "--no-roofline", "--json", "--dtype", "bfloat16"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u) << "base and SwiftKV";
  EXPECT_EQ(rows[0]["test"], "pp16+tg4");
  EXPECT_EQ(rows[0]["n_batch"], 8);
  const ProcessResult table = Bench("latency", {"-p", "16", "-n", "0", "-r", "1", "-t", "1", "--no-roofline"});
  EXPECT_THAT(table.out, HasSubstr("1 threads of "));
}

// The server answers every request with two tokens.
TEST_F(BenchCliTest, ServeSavesTheMetricsThatAreWanted) {
  const ScriptedServer server([](int, const std::string&) {
    return Script{
        {std::chrono::milliseconds(0),
         "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
         "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: [DONE]\n\n"}};
  });
  const std::vector<std::string> workload = {"--prompt-format",     "ids", "--random-input-len", "8",
                                             "--random-output-len", "2",   "--num-prompts",      "3",
                                             "--max-concurrency",   "2"};
  std::vector<std::string> arguments = {"bench",
                                        "serve",
                                        "--backend",
                                        "vllm",
                                        "--port",
                                        server.port(),
                                        "--model",
                                        "org/tiny",
                                        "--tokenizer",
                                        Path("base"),
                                        "--save-result",
                                        "--result-dir",
                                        Path("results/new"),
                                        "--percentile-metrics",
                                        "ttft,e2el",
                                        "--metric-percentiles",
                                        "95",
                                        "--json"};
  arguments.insert(arguments.end(), workload.begin(), workload.end());
  const ProcessResult result = RunSwiftKv(arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["completed"], 3);
  EXPECT_TRUE(json.contains("p95_ttft_ms") && json.contains("mean_e2el_ms"));
  EXPECT_FALSE(json.contains("mean_tpot_ms"));
  std::vector<std::string> files;
  for (const auto& file : std::filesystem::directory_iterator(Path("results/new"))) {
    files.push_back(file.path().filename());
  }
  ASSERT_EQ(files.size(), 1u);
  EXPECT_THAT(files[0], ContainsRegex("^vllm-infqps-concurrency2-tiny-[0-9]{8}-[0-9]{6}\\.json$"));
}

TEST_F(BenchCliTest, RandomWeightsNeedAConfigAlone) {
  const std::string config = Path("base") + "/config.json";
  const ProcessResult result =
      RunSwiftKv({"bench", "latency", "--load-format", "dummy", "--config", config, "--num-key-value-layers", "1", "-p",
                  "8", "-n", "0", "-r", "1", "--no-roofline"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("n = 1"));
  EXPECT_THAT(result.out, HasSubstr("swiftkv t/s"));
}

TEST_F(BenchCliTest, ThroughputAndSweep) {
  const ProcessResult throughput =
      Bench("throughput", {"--input-len", "20", "--output-len", "3", "--num-prompts", "2", "-r", "3", "--json"});
  ASSERT_EQ(throughput.exit_code, 0) << throughput.err;
  EXPECT_EQ(Json::parse(throughput.out)[1]["total_num_tokens"], 46);
  EXPECT_EQ(Json::parse(throughput.out)[1]["samples_ts"].size(), 3u);
  std::vector<std::string> arguments = {"--output-len", "2",           "--num-prompts", "2",  "--request-rate", "100",
                                        "-o",           Path("sweep"), "--json",        "-q", "--input-len",    "8"};
  const ProcessResult part = Bench("sweep", arguments);
  ASSERT_EQ(part.exit_code, 0) << part.err;
  arguments.back() = "8,16";
  arguments.emplace_back("--resume");
  const ProcessResult sweep = Bench("sweep", arguments);
  ASSERT_EQ(sweep.exit_code, 0) << sweep.err;
  const Json points = Json::parse(sweep.out);
  EXPECT_EQ(points.size(), 8u);
  EXPECT_EQ(points[0], Json::parse(part.out)[0]);
  EXPECT_TRUE(std::filesystem::exists(Path("sweep") + "/report.html"));
  arguments.insert(arguments.end(), {"--kv-cache-tokens", "64"});
  const ProcessResult other_cache = Bench("sweep", arguments);
  EXPECT_EQ(other_cache.exit_code, 2);
  EXPECT_THAT(other_cache.err, HasSubstr("points are of another sweep"));
  const ProcessResult relative =
      Bench("sweep", {"--output-len", "2", "--num-prompts", "2", "--input-len", "8", "--relative-request-rate", "0.5",
                      "-o", Path("relative"), "--json", "-q"});
  ASSERT_EQ(relative.exit_code, 0) << relative.err;
  const Json of_relative = Json::parse(relative.out);
  ASSERT_EQ(of_relative.size(), 4u);
  EXPECT_NEAR(of_relative[2]["request_rate"].get<double>(), of_relative[0]["request_throughput"].get<double>() / 2,
              1e-9);
}

TEST_F(BenchCliTest, SweepKeepsThePointsOfAnEarlierRun) {
  const std::vector<std::string> arguments = {
      "--output-len", "2", "--num-prompts", "2", "--input-len", "8", "--request-rate", "100", "-o", Path("twice")};
  const ProcessResult first = Bench("sweep", arguments);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_FALSE(std::filesystem::exists(Path("twice/points.previous.jsonl")));
  const auto size = std::filesystem::file_size(Path("twice/points.jsonl"));
  const ProcessResult second = Bench("sweep", arguments);
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_EQ(std::filesystem::file_size(Path("twice/points.previous.jsonl")), size);
  EXPECT_THAT(second.err, AllOf(HasSubstr("twice/points.previous.jsonl"), HasSubstr("--resume")));
}

TEST_F(BenchCliTest, WrongUsageIsASentence) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"bench"}, "subcommand"},
      {{"bench", "nonsense"}, "there is no command \"bench nonsense\""},
      {{"bench", "latency", Path("base"), "--json", "-o", "csv"}, "--output"},
      {{"bench", "serve", "--dataset-name", "sharegpt"}, "there are random, lengths-file"},
      {{"bench", "serve", "--percentile-metrics", "ttft,speed"}, "speed"},
      {{"bench", "latency", Path("base"), "-p", "many"}, "-p many"},
      {{"bench", "latency", Path("base"), "-p", "0", "-n", "0"}, "nothing to measure"},
      {{"bench", "latency", Path("base"), "-p", "5000"}, "context holds 512 tokens"},
      {{"bench", "latency", Path("base"), "-p", "99999999999999999999"}, "whole numbers"},
      {{"bench", "latency", Path("base"), "--mode", "swiftkv"}, "has no mode swiftkv"},
      {{"bench", "latency", Path("base"), "--pg", "5"}, "PROMPT,OUTPUT"},
      {{"bench", "latency", Path("base"), "-o", "xml"}, "xml"},
      {{"bench", "latency", "--load-format", "dummy"}, "needs --config"},
      {{"bench", "latency", "--config", "x.json"}, "--load-format dummy"},
      {{"bench", "latency", "--load-format", "dummy", "--config", "/nonexistent.json"}, "/nonexistent.json"},
      {{"bench", "throughput", Path("base"), "--input-len", "0"}, "0 tokens"},
      {{"bench", "throughput", Path("base"), "--dataset-name", "trace"}, "--dataset-path"},
      {{"bench", "serve", "--request-rate", "0"}, "--request-rate 0"},
      {{"bench", "serve", "--request-rate", "1,2"}, "one rate"},
      {{"bench", "serve", "--dataset-name", "trace", "--request-rate", "2"}, "--trace-speedup"},
      {{"bench", "serve", "--metric-percentiles", "101"}, "0 to 100"},
      {{"bench", "serve", "--goodput", "speed:3"}, "--goodput speed:3"},
      {{"bench", "serve", "--tokenizer", "/nonexistent"}, "/nonexistent"},
      {{"bench", "serve", "--base-url", "ftp://x", "--tokenizer", Path("base")}, "http://"},
      {{"bench", "sweep", Path("base"), "--input-len", "511", "-o", Path("none")}, "context holds 512"},
  };
  for (const auto& [arguments, sentence] : cases) {
    const ProcessResult result = RunSwiftKv(arguments);
    EXPECT_EQ(result.exit_code, 2) << sentence << ": " << result.err;
    EXPECT_THAT(result.out, IsEmpty()) << sentence;
    EXPECT_THAT(result.err, HasSubstr(sentence));
  }
}

}  // namespace
}  // namespace swiftkv
