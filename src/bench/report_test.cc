// What load runs amount to, and the reports of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "bench/engine_load.h"
#include "bench/latency.h"
#include "bench/serve_report.h"
#include "bench/sweep.h"
#include "bench/throughput.h"
#include "bench/workload.h"
#include "engine/model_costs.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

RequestOutcome Outcome(double start, double ttft, std::vector<double> gaps) {
  RequestOutcome outcome{.start = start, .ttft = ttft, .latency = ttft, .prompt_tokens = 10};
  for (const double gap : gaps) outcome.latency += gap;
  outcome.output_tokens = std::ssize(gaps) + 1;
  outcome.inter_token = std::move(gaps);
  return outcome;
}

LoadRun ThreeAndAFailure() {
  LoadRun run;
  run.outcomes = {Outcome(0, 0.1, {0.02, 0.04}), Outcome(0.5, 0.3, {}), Outcome(1, 0.2, {0.1}), {}};
  run.outcomes[3].start = 1;
  run.outcomes[3].failure = RequestFailure{"http 503", "full"};
  run.duration = 2;
  run.max_concurrent = 2;
  return run;
}

TEST(ServeReportTest, FormulasAreVllms) {
  const std::vector<LoadRequest> requests(4);
  const ServeReport report =
      MakeServeReport(requests, ThreeAndAFailure(),
                      {.percents = {50, 99}, .goodput = Goodput{.ttft = 250, .tpot = 50}, .request_rate = 4});
  EXPECT_EQ(report.completed, 3);
  EXPECT_EQ(report.failed(), 1);
  EXPECT_EQ(report.prompt_tokens, 30);
  EXPECT_EQ(report.output_tokens, 6);
  EXPECT_EQ(report.request_throughput(), 1.5);
  EXPECT_EQ(report.output_throughput(), 3);
  EXPECT_EQ(report.total_token_throughput(), 18);
  EXPECT_EQ(report.request_goodput(), 0.5);  // TTFT breaks the second, TPOT the third
  EXPECT_NEAR(report.ttft.mean, 200, 1e-9);
  EXPECT_NEAR(report.ttft.percentiles[1], 298, 1e-9);
  EXPECT_NEAR(report.tpot.mean, (30 + 100) / 2.0, 1e-9);  // a single token has no TPOT
  EXPECT_NEAR(report.itl.median, 40, 1e-9);
  EXPECT_NEAR(report.e2el.mean, (160 + 300 + 300) / 3.0, 1e-9);
  EXPECT_EQ(report.max_output_tokens_per_second, 4);
}

TEST(ServeReportTest, JsonHasVllmsFields) {
  const nlohmann::ordered_json json =
      ServeReportJson(MakeServeReport(std::vector<LoadRequest>(4), ThreeAndAFailure(), {.percents = {99, 99.9}}));
  for (const char* field : {"request_rate",
                            "burstiness",
                            "max_concurrency",
                            "duration",
                            "completed",
                            "failed",
                            "total_input_tokens",
                            "total_output_tokens",
                            "request_throughput",
                            "request_goodput",
                            "output_throughput",
                            "total_token_throughput",
                            "max_output_tokens_per_s",
                            "max_concurrent_requests",
                            "mean_ttft_ms",
                            "median_ttft_ms",
                            "std_ttft_ms",
                            "p99_ttft_ms",
                            "mean_tpot_ms",
                            "p99_tpot_ms",
                            "mean_itl_ms",
                            "p99.9_itl_ms",
                            "mean_e2el_ms",
                            "p99_e2el_ms"}) {
    EXPECT_TRUE(json.contains(field)) << field;
  }
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_EQ(json["failures"], nlohmann::ordered_json({{"http 503", 1}}));
  const nlohmann::ordered_json details = DetailsJson(ThreeAndAFailure());
  EXPECT_EQ(details["output_lens"], nlohmann::ordered_json({3, 1, 2, 0}));
  EXPECT_EQ(details["errors"][3], "http 503: full");
}

TEST(ServeReportTest, OnlyTheMetricsThatAreWanted) {
  const ServeReport report =
      MakeServeReport(std::vector<LoadRequest>(4), ThreeAndAFailure(), {.metrics = {"ttft", "e2el"}});
  const nlohmann::ordered_json json = ServeReportJson(report);
  EXPECT_TRUE(json.contains("p99_ttft_ms") && json.contains("mean_e2el_ms"));
  EXPECT_FALSE(json.contains("mean_tpot_ms") || json.contains("p99_itl_ms"));
  EXPECT_THAT(ServeReportText(report), AllOf(HasSubstr("P99 TTFT (ms):"), Not(HasSubstr("Mean ITL (ms):"))));
}

TEST(ServeReportTest, TextNamesFailuresAndFormulas) {
  const ServeReport report = MakeServeReport(std::vector<LoadRequest>(4), ThreeAndAFailure(), {});
  const std::string text = ServeReportText(report);
  EXPECT_THAT(text, HasSubstr("http 503:"));
  EXPECT_THAT(text, HasSubstr("TPOT = (E2EL - TTFT) / (output tokens - 1)"));
  EXPECT_THAT(text, HasSubstr("P99 TTFT (ms):"));
  // Nothing measured is zeros, not nonsense.
  EXPECT_EQ(MakeServeReport({}, {}, {}).total_token_throughput(), 0);
}

TEST(ServeReportTest, GoodputLimitsAreParsed) {
  const auto goodput = ParseGoodput({"ttft:200", "e2el:5000.5"});
  ASSERT_TRUE(goodput.has_value());
  EXPECT_EQ(goodput->ttft, 200);
  EXPECT_EQ(goodput->tpot, std::nullopt);
  EXPECT_EQ(goodput->e2el, 5000.5);
  for (const char* wrong : {"", "ttft", "ttft:", "ttft:0", "ttft:x", "itl:3", "ttft:1ms", "ttft:nan"}) {
    EXPECT_FALSE(ParseGoodput({wrong})) << wrong;
  }
}

MeasuredModel TinyModel() {
  ModelConfig config = TinyConfig(Family::kLlama, 6);
  config.num_key_value_layers = 3;
  MeasuredModel model{.origin = "tiny <model>", .weights = {}, .modes = {Mode::kTeacher, Mode::kStudent}};
  model.weights = *RandomWeights(config, 1, {.dtype = DType::kF32, .teacher = true});
  return model;
}

LatencyReport TinyLatency() {
  const MeasuredModel model = TinyModel();
  LatencyReport report;
  report.machine = ReadMachineInfo();
  report.model = Describe(model, {});
  report.product_dtype = DType::kF32;
  report.results = *MeasureLatency(
      model, {{.prompt = 40, .sequences = 2, .batch_tokens = 32}, {.prompt = 8, .generate = 4, .depth = 17}},
      {.repetitions = 2});
  report.rooflines = {*MeasureRoofline({.seconds = 0.001, .read_bytes = 1 << 20, .dtypes = {DType::kF32}})};
  report.rooflines.push_back(report.rooflines.front());
  return report;
}

TEST(LatencyTest, MeasuresBothModesAndReportsInEveryFormat) {
  const LatencyReport report = TinyLatency();
  ASSERT_EQ(report.results.size(), 2u);
  EXPECT_EQ(report.results[0].modes[1].seconds.size(), 2u);
  EXPECT_EQ(report.results[0].modes[1].tokens, 80);
  EXPECT_LT(report.results[0].modes[1].work.flops, report.results[0].modes[0].work.flops);
  const std::string markdown = LatencyReportText(report, ReportFormat::kMarkdown);
  EXPECT_THAT(markdown, HasSubstr("pp40 |"));
  EXPECT_THAT(markdown, HasSubstr("pp8+tg4 @ d17"));
  EXPECT_THAT(markdown, HasSubstr("ISA "));
  const auto rows = nlohmann::json::parse(LatencyReportText(report, ReportFormat::kJson));
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0]["n_prompt"], 40);
  EXPECT_EQ(rows[0]["mode"], "base");
  EXPECT_EQ(rows[3]["mode"], "swiftkv");
  EXPECT_EQ(rows[3]["n_depth"], 17);
  EXPECT_GT(rows[0]["avg_ts"], 0);
  EXPECT_GT(rows[0]["roofline_share"], 0);
  const std::string lines = LatencyReportText(report, ReportFormat::kJsonLines);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 4);
  const std::string csv = LatencyReportText(report, ReportFormat::kCsv);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 5);
  EXPECT_THAT(csv, HasSubstr(",\"tiny <model>\","));
}

TEST(LatencyTest, ImpossibleTestsAreSentences) {
  const ModelConfig config = TinyConfig();
  EXPECT_FALSE(Validate(LatencyTest{}, config));
  EXPECT_FALSE(Validate(LatencyTest{.prompt = 200, .depth = 100}, config));
  EXPECT_FALSE(Validate(LatencyTest{.prompt = INT64_MAX}, config));
  EXPECT_FALSE(Validate(LatencyTest{.prompt = 8, .sequences = 0}, config));
  EXPECT_TRUE(Validate(LatencyTest{.prompt = 200, .generate = 56}, config));
  EXPECT_FALSE(ParseReportFormat("xml"));
}

TEST(RooflineTest, WorkOfAPrefillIsTheModelsCost) {
  ModelConfig config = TinyConfig(Family::kLlama, 6);
  config.num_key_value_layers = 3;
  config.key_value_group_size = 3;
  const Weights weights = *RandomWeights(config, 1, {.dtype = DType::kF32, .teacher = true});
  Step step;
  step.token_ids.assign(10, 1);
  step.chunks = {{.tokens = 10, .position = 20, .block_table = {}}};
  const ModelCosts costs = ComputeModelCosts(config);
  // No logit rows: n layers and the K/V of the later groups; attention of n layers over 20 + 1 .. 20 + 10 tokens.
  const double pairs = 10 * 20 + 55;
  const double attention = 2.0 * static_cast<double>(config.q_size()) * 3 * pairs;
  EXPECT_EQ(StepWork(step, weights, Mode::kStudent).flops,
            2 * (10.0 * static_cast<double>(costs.swiftkv_prefill_macs) + attention));
  // A logit row adds the later layers, less their K/V, and the lm_head.
  step.logit_rows = {9};
  const double before = StepWork(step, weights, Mode::kStudent).flops;
  step.logit_rows = {};
  EXPECT_GT(before, StepWork(step, weights, Mode::kStudent).flops);
  EXPECT_GT(StepWork(step, weights, Mode::kTeacher).flops, before);
}

// A decode step reads the cache of its 21 tokens once in each layer, whatever the cache's type is.
TEST(RooflineTest, WorkOfADecodeReadsTheCacheInItsType) {
  const ModelConfig config = TinyConfig(Family::kLlama, 6);
  const Weights weights = *RandomWeights(config, 1, {.dtype = DType::kF32, .teacher = true});
  Step step;
  step.token_ids = {1};
  step.chunks = {{.tokens = 1, .position = 20, .block_table = {}}};
  step.logit_rows = {0};
  const auto cache_bytes = [&](std::optional<DType> dtype) {
    return 21.0 * static_cast<double>(CacheLayout(weights, Mode::kTeacher, dtype).bytes_per_token());
  };
  const auto bytes = [&](std::optional<DType> dtype) { return StepWork(step, weights, Mode::kTeacher, dtype).bytes; };
  EXPECT_EQ(bytes({}) - bytes(DType::kI8), cache_bytes({}) - cache_bytes(DType::kI8));
  EXPECT_GT(bytes({}), bytes(DType::kI8));
}

TEST(EngineLoadTest, EveryRequestGetsItsTokensAtItsTime) {
  const MeasuredModel model = TinyModel();
  auto workload =
      MakeWorkload({.num_prompts = 6, .prompt_tokens = 30, .output_tokens = 5, .arrivals = {.request_rate = 40}});
  FillWithTokenIds(model.weights.config.vocab_size, 1, &workload->requests);
  const auto run = RunEngineLoad(model.weights, Mode::kStudent, workload->requests, {});
  ASSERT_TRUE(run.has_value()) << run.error().message;
  for (size_t i = 0; i < run->outcomes.size(); ++i) {
    EXPECT_EQ(run->outcomes[i].output_tokens, 5);
    EXPECT_EQ(run->outcomes[i].inter_token.size(), 4u);
    EXPECT_EQ(run->outcomes[i].start, workload->requests[i].arrival);
    EXPECT_GT(run->outcomes[i].ttft, 0);
  }
  EXPECT_GE(run->duration, 0.15);
  EngineLoadOptions cancelled;
  cancelled.cancelled = [] { return true; };
  EXPECT_EQ(RunEngineLoad(model.weights, Mode::kStudent, workload->requests, cancelled).error().code,
            ErrorCode::kCancelled);
}

TEST(ThroughputTest, BothModesSideBySide) {
  const MeasuredModel model = TinyModel();
  auto workload = MakeWorkload({.num_prompts = 3, .prompt_tokens = 20, .output_tokens = 4});
  FillWithTokenIds(model.weights.config.vocab_size, 1, &workload->requests);
  const auto results = MeasureThroughput(model, workload->requests, {}, /*repetitions=*/2);
  ASSERT_TRUE(results.has_value());
  ModelInfo info = Describe(model, DType::kI8);
  info.quantization = "int8";
  const auto json = ThroughputJson(ReadMachineInfo(), info, *results);
  EXPECT_EQ(json[0]["mode"], "base");
  EXPECT_EQ(json[1]["total_num_tokens"], 72);
  EXPECT_EQ(json[1]["num_requests"], 3);
  ASSERT_EQ(json[1]["samples_ts"].size(), 2u);
  EXPECT_EQ(json[1]["tokens_per_second"], json[1]["samples_ts"][1]) << "the last round";
  EXPECT_DOUBLE_EQ(json[1]["avg_ts"].get<double>(),
                   (json[1]["samples_ts"][0].get<double>() + json[1]["samples_ts"][1].get<double>()) / 2);
  EXPECT_EQ(json[0]["quantization"], "int8");
  EXPECT_EQ(json[0]["type_k"], "I8");
  EXPECT_EQ(json[0]["num_key_value_layers"], 3);
  const std::string text = ThroughputText(ReadMachineInfo(), info, *results);
  EXPECT_THAT(text, HasSubstr("SwiftKV over base"));
  EXPECT_THAT(text, HasSubstr("tiny <model>: L = 6, n = 3, g = 1"));
  EXPECT_THAT(text, HasSubstr("weights int8"));
  EXPECT_THAT(text, HasSubstr("K/V cache I8"));
  EXPECT_THAT(text, HasSubstr("standard deviation of 2 rounds in turns"));
}

// Points as a server would give them, without a server.
Result<LoadRun> FakeLoad(Mode mode, const std::vector<LoadRequest>& requests) {
  LoadRun run;
  for (const LoadRequest& request : requests) {
    run.outcomes.push_back(Outcome(request.arrival, mode == Mode::kTeacher ? 0.2 : 0.1, {0.02, 0.02}));
    EXPECT_EQ(std::ssize(request.prompt_token_ids), request.prompt_tokens);
  }
  run.duration = mode == Mode::kTeacher ? 2 : 1;
  return run;
}

TEST(SweepTest, MeasuresLengthsTimesRates) {
  std::vector<std::vector<int32_t>> prompts;
  const MeasureLoad measure = [&](Mode mode, const std::vector<LoadRequest>& requests) {
    prompts.push_back(requests.front().prompt_token_ids);
    return FakeLoad(mode, requests);
  };
  const SweepOptions options{
      .input_lens = {8, 16}, .output_len = 3, .num_prompts = 4, .relative_rates = {0.5, 1}, .vocab_size = 50};
  const auto points = RunSweep({Mode::kTeacher, Mode::kStudent}, options, measure);
  ASSERT_TRUE(points.has_value());
  ASSERT_EQ(points->size(), 12u);
  EXPECT_EQ((*points)[2].request_rate, 1);  // half of base's 4 requests in 2 s
  EXPECT_EQ((*points)[3].mode, Mode::kStudent);
  EXPECT_EQ(prompts[0], prompts[1]);  // both modes get the same
  EXPECT_NE(prompts[1], prompts[2]);  // no point repeats another's
}

TEST(SweepTest, GoesOnFromPointsOfAFile) {
  SweepOptions options{.input_lens = {8}, .output_len = 3, .num_prompts = 4, .relative_rates = {0.3}, .vocab_size = 50};
  const MeasureLoad with_failure = [](Mode mode, const std::vector<LoadRequest>& requests) {
    auto run = FakeLoad(mode, requests);
    run->outcomes[1].failure = RequestFailure{"timeout", "after 1 s"};
    return run;
  };
  const auto first = *RunSweep({Mode::kTeacher, Mode::kStudent}, options, with_failure);
  const std::string path = testing::TempDir() + "swiftkv_points_" + std::to_string(getpid());
  std::string lines;
  for (const SweepPoint& point : first) lines += SweepPointLine(point, "this machine");
  ASSERT_TRUE(WriteFile(path, lines + "{\"mode\": \"ba").has_value());  // as a killed run leaves it
  const auto known = ReadSweepPoints(path, "this machine");
  ASSERT_TRUE(known.has_value()) << known.error().message;
  ASSERT_EQ(known->size(), first.size());
  for (size_t i = 0; i < first.size(); ++i) EXPECT_EQ(SweepPointJson((*known)[i]), SweepPointJson(first[i]));

  options.known = *known;
  options.input_lens = {8, 16};
  int measured = 0;
  const MeasureLoad counted = [&](Mode mode, const std::vector<LoadRequest>& requests) {
    ++measured;
    EXPECT_EQ(requests.front().prompt_tokens, 16);
    return FakeLoad(mode, requests);
  };
  const auto second = *RunSweep({Mode::kTeacher, Mode::kStudent}, options, counted);
  EXPECT_EQ(measured, 4);
  ASSERT_EQ(second.size(), 8u);
  EXPECT_EQ(SweepText({second.begin(), second.begin() + 4}), SweepText(first));

  const auto other = ReadSweepPoints(path, "another machine");
  ASSERT_FALSE(other.has_value());
  EXPECT_THAT(other.error().message, HasSubstr("points are of another sweep"));
  ASSERT_TRUE(WriteFile(path, "{\"job\": \"this machine\", \"mode\": \"base\"}\n").has_value());
  const auto wrong = ReadSweepPoints(path, "this machine");
  ASSERT_FALSE(wrong.has_value());
  EXPECT_THAT(wrong.error().message, HasSubstr("byte 0 begins no point"));
  EXPECT_TRUE(ReadSweepPoints(path + "_none", "this machine")->empty());
  std::filesystem::remove(path);
}

TEST(SweepTest, LeavesFiguresPicturesAndOnePage) {
  const SweepOptions options{.input_lens = {8, 16}, .output_len = 3, .num_prompts = 4, .vocab_size = 50};
  Sweep sweep;
  sweep.machine = ReadMachineInfo();
  sweep.origin = "tiny <model>";
  sweep.command = "bench & sweep";
  sweep.config = TinyConfig();
  sweep.points = *RunSweep({Mode::kTeacher, Mode::kStudent}, options, FakeLoad);
  const std::string folder = testing::TempDir() + "swiftkv_sweep_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  const auto warning = WriteSweepReport(folder, sweep);
  ASSERT_TRUE(warning.has_value()) << warning.error().message;
  const std::string page = *ReadFile(folder + "/" + kSweepReport, 1 << 24);
  EXPECT_THAT(page, HasSubstr("tiny &lt;model&gt;"));
  EXPECT_THAT(page, HasSubstr("bench &amp; sweep"));
  EXPECT_THAT(page, Not(HasSubstr("<?xml")));
  EXPECT_THAT(page, Not(HasSubstr("href=\"http")));
  if (warning->empty()) {
    EXPECT_THAT(page, HasSubstr("<svg"));
    for (const char* picture : {"throughput.svg", "ttft.svg", "tpot.svg"}) {
      EXPECT_TRUE(std::filesystem::exists(folder + "/" + picture)) << picture;
    }
  } else {
    EXPECT_THAT(*warning, HasSubstr("gnuplot"));
  }
  const auto json = nlohmann::json::parse(*ReadFile(folder + "/sweep.json", 1 << 24));
  EXPECT_EQ(json["points"].size(), sweep.points.size());
  EXPECT_EQ(json["points"][1]["mode"], "swiftkv");
  EXPECT_THAT(SweepText(sweep.points), HasSubstr("| 16 | all at once | swiftkv |"));
  EXPECT_THAT(SweepData(sweep.points), HasSubstr("# swiftkv, input 16"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace swiftkv
