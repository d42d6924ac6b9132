// The binary as a user meets it: exit codes, sentences, what goes to which output, signals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

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

class CliTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new std::string(testing::TempDir() + "swiftkv_cli_" + std::to_string(getpid()));
    WriteTinyModel(*folder_ + "/base");
    WriteTinyModel(*folder_ + "/swiftkv", {.swiftkv = true});
    WriteTinyModel(*folder_ + "/adapter", {.adapter_only = true});
    WriteTinyModel(*folder_ + "/mute", {.chat_template = false});
  }
  static void TearDownTestSuite() {
    std::filesystem::remove_all(*folder_);
    delete folder_;
  }
  static std::string Path(const std::string& name) { return *folder_ + "/" + name; }
  static ProcessResult Generate(std::vector<std::string> arguments, const ProcessOptions& options = {}) {
    arguments.insert(arguments.begin(), {"generate", Path("base")});
    return RunSwiftKv(arguments, options);
  }
  // Exit code 2, nothing on standard output, a sentence on standard error.
  static void ExpectWrongInput(const ProcessResult& result, const std::string& sentence) {
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, AllOf(StartsWith("swiftkv: "), HasSubstr(sentence)));
  }
  static std::string* folder_;
};
std::string* CliTest::folder_ = nullptr;

TEST_F(CliTest, HelpAndVersionAreResults) {
  const ProcessResult help = RunSwiftKv({"generate", "--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.err, IsEmpty());
  EXPECT_THAT(help.out, AllOf(HasSubstr("--top-k"), HasSubstr("SWIFTKV_TOP_K"), HasSubstr("Examples:")));
  for (const char* command : {"generate", "chat", "inspect", "doctor"}) {
    EXPECT_THAT(RunSwiftKv({"--help"}).out, HasSubstr(command));
    EXPECT_EQ(RunSwiftKv({command, "--help"}).exit_code, 0);
  }
  EXPECT_THAT(RunSwiftKv({"--version"}).out, StartsWith("swiftkv "));
}

TEST_F(CliTest, WrongUsageIsRefused) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{},
                                                    {"frobnicate"},
                                                    {"generate", "--frobnicate"},
                                                    {"generate", "--max-tokens"},
                                                    {"generate", "--top-k", "many"},
                                                    {"generate", "--threads", "-1"},
                                                    {"generate", "--seed", "-1"},
                                                    {"generate", "--dtype", "f64"},
                                                    {"generate", "--mode", "teacher"},
                                                    {"inspect", "a", "b"}}) {
    const ProcessResult result = RunSwiftKv(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, StartsWith("swiftkv: "));
  }
}

TEST_F(CliTest, WrongUsageNamesTheWord) {
  EXPECT_THAT(RunSwiftKv({"frobnicate"}).err, HasSubstr("there is no command \"frobnicate\""));
  EXPECT_THAT(RunSwiftKv({"--frobnicate"}).err, HasSubstr("there is no flag \"--frobnicate\""));
  EXPECT_THAT(RunSwiftKv({"generate", "--frobnicate"}).err, HasSubstr("--frobnicate"));
}

TEST_F(CliTest, WrongUsageNamesTheHelpOfItsCommand) {
  EXPECT_THAT(RunSwiftKv({"-z"}).err, HasSubstr("Try: swiftkv --help"));
  EXPECT_THAT(RunSwiftKv({"generate", "-z"}).err, HasSubstr("Try: swiftkv generate --help"));
  EXPECT_THAT(RunSwiftKv({"bench", "-z"}).err, HasSubstr("Try: swiftkv bench --help"));
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"-z"}, {"-r", "0"}}) {
    std::vector<std::string> arguments = {"bench", "latency"};
    arguments.insert(arguments.end(), wrong.begin(), wrong.end());
    EXPECT_THAT(RunSwiftKv(arguments).err, HasSubstr("Try: swiftkv bench latency --help")) << wrong[0];
  }
}

TEST_F(CliTest, GeneratedTextIsOnStandardOutputAndTimingsOnStandardError) {
  const ProcessResult result = Generate({"--prompt", "hello", "--max-tokens", "10", "--ignore-eos"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.size(), 11u) << "ten characters and a newline";
  EXPECT_THAT(result.err, AllOf(HasSubstr("prompt 5 tokens, TTFT"), HasSubstr("output 10 tokens, decode")));
  const ProcessResult quiet = Generate({"hello", "--max-tokens", "10", "--ignore-eos", "--quiet"});
  EXPECT_EQ(quiet.out, result.out);
  EXPECT_THAT(quiet.err, IsEmpty());
}

TEST_F(CliTest, ThePromptComesFromFlagFileOrStandardInput) {
  std::ofstream(Path("prompt.txt")) << "hello";
  const std::vector<std::string> flags = {"--max-tokens", "8", "--ignore-eos", "--quiet"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return arguments;
  };
  const std::string expected = Generate(with({"--prompt", "hello"})).out;
  EXPECT_EQ(expected.size(), 9u);
  EXPECT_EQ(Generate(with({"--file", Path("prompt.txt")})).out, expected);
  EXPECT_EQ(Generate(with({"--file", "-"}), {.input = "hello"}).out, expected);
  EXPECT_EQ(Generate(with({}), {.input = "hello"}).out, expected);
}

TEST_F(CliTest, JsonHasTextTokensUsageAndTimings) {
  const ProcessResult result = Generate({"hello", "--max-tokens", "6", "--ignore-eos", "--json", "--n", "2",
                                         "--temperature", "1", "--seed", "3", "--logprobs", "2"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["token_ids"].size(), 6u);
  EXPECT_EQ(json["text"], json["choices"][0]["text"]);
  EXPECT_EQ(json["choices"].size(), 2u);
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(json["logprobs"][0]["top"].size(), 2u);
  EXPECT_EQ(json["seed"], 3);
  EXPECT_EQ(json["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(json["usage"]["completion_tokens"], 12);
  EXPECT_GT(json["timings"]["ttft_s"], 0.0);
  EXPECT_EQ(json["model"]["mode"], "base");
}

TEST_F(CliTest, AFlagBeatsTheEnvironmentAndThatTheDefault) {
  const std::vector<std::string> environment = {"SWIFTKV_MAX_TOKENS=4", "SWIFTKV_IGNORE_EOS=true", "SWIFTKV_QUIET=1"};
  EXPECT_EQ(Generate({"hello"}, {.environment = environment}).out.size(), 5u);
  EXPECT_EQ(Generate({"hello", "--max-tokens", "7"}, {.environment = environment}).out.size(), 8u);
  EXPECT_EQ(Generate({"hello"}, {.environment = {"SWIFTKV_MAX_TOKENS=many"}}).exit_code, 2);
  EXPECT_EQ(Generate({"--prompt", "hello", "-n", "4"}, {.environment = {"SWIFTKV_FILE=/no/file"}}).exit_code, 0);
  EXPECT_EQ(Generate({"hello", "-n", "4"}, {.environment = {"SWIFTKV_SYSTEM=without --chat"}}).exit_code, 0);
}

TEST_F(CliTest, SpellingsOfOtherTools) {
  const std::vector<std::string> ours = {"hello", "--max-tokens", "9", "--ignore-eos", "-q", "--dtype", "f32"};
  const std::string expected = Generate(ours).out;
  EXPECT_EQ(expected.size(), 10u);
  EXPECT_EQ(Generate({"hello", "--max_tokens=9", "--ignore_eos", "-q", "--dtype", "float32"}).out, expected);
  EXPECT_THAT(Generate({"hello", "--max_toks", "9"}).err, HasSubstr("--max_toks"));
}

TEST_F(CliTest, ABFloat16CacheUnderBothTypes) {
  const auto json = [](std::vector<std::string> flags) {
    flags.insert(flags.end(), {"hello", "--max-tokens", "4", "--logprobs", "0", "--ignore-eos", "--json"});
    const ProcessResult result = Generate(flags);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? Json::parse(result.out)["logprobs"] : Json();
  };
  EXPECT_EQ(json({"--kv-cache-dtype", "bfloat16"}), json({}));
  const Json wide = json({"--dtype", "f32"});
  const Json narrow = json({"--dtype", "f32", "--kv-cache-dtype", "bf16"});
  EXPECT_NE(wide, narrow);
  EXPECT_NEAR(wide[0]["logprob"].get<double>(), narrow[0]["logprob"].get<double>(), 0.05);
}

TEST_F(CliTest, SamplingIsRepeatableAndStopsWhereAsked) {
  const std::vector<std::string> flags = {"hello", "--max-tokens", "30", "--ignore-eos", "-q", "--temp",
                                          "1",     "-s",           "5"};
  const std::string whole = Generate(flags).out;
  EXPECT_EQ(Generate(flags).out, whole);
  std::vector<std::string> stop = flags;
  stop.insert(stop.end(), {"--stop", whole.substr(12, 4), "--stop", "nowhere"});
  EXPECT_EQ(Generate(stop).out, whole.substr(0, whole.find(whole.substr(12, 4))) + "\n");
  std::vector<std::string> bias = flags;
  bias.insert(bias.end(), {"--logit-bias", "33=100", "--temp", "0"});
  EXPECT_EQ(Generate({"hello", "--max-tokens", "5", "-q", "--logit-bias", "33=100"}).out, "AAAAA\n");
}

TEST_F(CliTest, ModesAndAdapters) {
  const std::vector<std::string> flags = {"hello there", "--max-tokens", "20", "--ignore-eos", "-q", "--dtype", "f32"};
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "generate");
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return RunSwiftKv(arguments);
  };
  const std::string base = run({Path("base")}).out;
  const std::string swiftkv = run({Path("swiftkv")}).out;
  EXPECT_NE(base, swiftkv);
  EXPECT_EQ(run({Path("swiftkv"), "--mode", "base"}).out, base);
  EXPECT_NE(run({Path("base"), "--adapter", Path("adapter")}).out, base);
  EXPECT_EQ(run({Path("base"), "--adapter", Path("adapter"), "--mode", "base"}).out, base);
  ExpectWrongInput(run({Path("base"), "--mode", "swiftkv"}), "a plain model has no mode swiftkv");
  ExpectWrongInput(run({Path("base"), "--adapter", Path("nowhere")}), "nowhere");
  ExpectWrongInput(run({Path("base"), "--adapter", Path("base")}), "base");
}

// The program under test lies in a build folder of the repository, whose models/ it knows.
TEST_F(CliTest, AnAdapterThatShipsHasAName) {
  const ProcessResult wrong_base = RunSwiftKv({"inspect", Path("base"), "--adapter", "smollm2-135m-swiftkv-33"});
  EXPECT_EQ(wrong_base.exit_code, 2);
  EXPECT_THAT(wrong_base.err, HasSubstr("models/smollm2-135m-swiftkv-33/config.json"));
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"generate"}, {"convert"}, {"distill"}, {"eval"}, {"bench", "latency"}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {Path("base"), "--adapter", "nobody"});
    const ProcessResult unknown = RunSwiftKv(arguments);
    EXPECT_EQ(unknown.exit_code, 2) << command.front();
    EXPECT_THAT(unknown.err,
                HasSubstr("swiftkv: --adapter: there is no folder nobody, and no adapter of that name in"));
  }
}

TEST_F(CliTest, WrongInputGetsASentence) {
  ExpectWrongInput(RunSwiftKv({"generate", "/no/such/model", "x"}), "/no/such/model");
  ExpectWrongInput(RunSwiftKv({"generate", "no-such/model", "x"}), "no-such/model");
  ExpectWrongInput(Generate({"--file", "/no/such/file"}), "/no/such/file: no such file");
  ExpectWrongInput(Generate({"--file", "/tmp"}), "/tmp");
  ExpectWrongInput(Generate({"--prompt", ""}), "the prompt is empty");
  ExpectWrongInput(Generate({}), "the prompt is empty");
  ExpectWrongInput(Generate({"--prompt", "ab\xff"}), "byte 2 is not valid UTF-8");
  ExpectWrongInput(Generate({}, {.input = "\xc3"}), "standard input: byte 0 is not valid UTF-8");
  ExpectWrongInput(Generate({std::string(512, 'x')}), "512 tokens; the context holds 512");
  ExpectWrongInput(Generate({std::string(20, 'x'), "-c", "16"}), "20 tokens; the context holds 16");
  ExpectWrongInput(Generate({"x", "-c", "513"}), "context holds 1 to 512");
  ExpectWrongInput(Generate({"x", "--max-tokens", "-3"}), "max_tokens is -3");
  ExpectWrongInput(Generate({"x", "--temperature", "-1"}), "temperature is -1");
  ExpectWrongInput(Generate({"x", "--temperature", "nan"}), "temperature");
  ExpectWrongInput(Generate({"x", "--top-p", "0"}), "top_p is 0");
  ExpectWrongInput(Generate({"x", "--logit-bias", "96=1"}), "token 96; the vocabulary has 0 to 95");
  ExpectWrongInput(Generate({"x", "--logit-bias", "abc"}), "--logit-bias abc");
  ExpectWrongInput(Generate({"x", "--logit-bias", "[33=100]"}), "--logit-bias [33=100]");
  ExpectWrongInput(Generate({"x", "--n", "2"}), "--n 2 needs --json");
  ExpectWrongInput(Generate({"x", "--system", "y"}), "--system requires --chat");
  ExpectWrongInput(Generate({"x", "--prompt", "y"}), "");
  ExpectWrongInput(Generate({"x", "--file", "y"}), "exclude");
  ExpectWrongInput(RunSwiftKv({"chat", Path("mute"), "-p", "x"}), "no chat template");
  ExpectWrongInput(RunSwiftKv({"chat", Path("base"), "-p", "x", "--chat-template-kwargs", "[1]"}), "JSON object");
}

TEST_F(CliTest, MoreThreadsThanCoresAreCutToThem) {
  const ProcessResult result = Generate({"hello", "--max-tokens", "40", "--ignore-eos", "--json", "-t", "1024"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const int threads = Json::parse(result.out)["threads"];
  EXPECT_LE(threads, static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_THAT(result.err, HasSubstr("--threads 1024: this process may run on " + std::to_string(threads) + " cores"));
}

TEST_F(CliTest, ATenMegabytePromptIsRefusedCalmly) {
  ExpectWrongInput(Generate({}, {.input = std::string(10 << 20, 'x')}), "the context holds 512");
}

TEST_F(CliTest, InterruptKeepsWhatHasComeAndSaysSo) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const ProcessResult result = Generate({"hello", "--ignore-eos"}, {.signal_after_output = signal});
    EXPECT_EQ(result.exit_code, 128 + signal);
    EXPECT_THAT(result.out, Not(IsEmpty()));
    EXPECT_LT(result.out.size(), 507u) << "the rest of the context was not generated";
    EXPECT_THAT(result.err, HasSubstr("interrupted"));
  }
}

TEST_F(CliTest, AClosedOutputEndsQuietlyAndAFullDiskWithASentence) {
  const ProcessResult closed = Generate({"hello", "--ignore-eos"}, {.close_output = true});
  EXPECT_EQ(closed.exit_code, 141);
  EXPECT_THAT(closed.err, IsEmpty());
  const ProcessResult full = Generate({"hello", "--ignore-eos"}, {.output_file = "/dev/full"});
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, HasSubstr("standard output: No space left on device"));
  const std::vector<std::vector<std::string>> others = {
      {"--version"}, {"generate", "--help"}, {"doctor"}, {"inspect", Path("base"), "--json"}};
  for (const std::vector<std::string>& arguments : others) {
    const ProcessResult no_reader = RunSwiftKv(arguments, {.close_output = true});
    EXPECT_EQ(no_reader.exit_code, 141) << arguments[0];
    EXPECT_THAT(no_reader.err, IsEmpty());
    const ProcessResult no_space = RunSwiftKv(arguments, {.output_file = "/dev/full"});
    EXPECT_EQ(no_space.exit_code, 1) << arguments[0];
    EXPECT_EQ(no_space.err, "swiftkv: standard output: No space left on device\n");
  }
}

TEST_F(CliTest, ChatAnswersLineByLineFromTheCache) {
  const ProcessResult result = RunSwiftKv({"chat", Path("base"), "--json", "--max-tokens", "40", "--ignore-eos"},
                                          {.input = "hello\n\nagain\n/reset\nhello\n/exit\nnever read\n"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  std::vector<Json> answers;
  for (std::string line; std::getline(lines, line);) answers.push_back(Json::parse(line));
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0]["usage"]["cached_tokens"], 0);
  EXPECT_GE(answers[1]["usage"]["cached_tokens"], 48) << "the first turn is in the cache";
  EXPECT_EQ(answers[2]["text"], answers[0]["text"]);
}

TEST_F(CliTest, ChatAppliesTemplateSystemMessageAndOneShot) {
  const auto prompt_tokens = [](const ProcessResult& result) {
    return Json::parse(result.out)["usage"]["prompt_tokens"].get<size_t>();
  };
  const std::vector<std::string> flags = {"--json", "-n", "2"};
  EXPECT_EQ(prompt_tokens(RunSwiftKv({"chat", Path("base"), "-p", "hi", "--json", "-n", "2"})),
            std::string("[user] hi [assistant] ").size());
  EXPECT_EQ(prompt_tokens(RunSwiftKv({"chat", Path("base"), "-p", "hi", "--system", "be brief", "--json", "-n", "2"})),
            std::string("[system] be brief [user] hi [assistant] ").size());
  EXPECT_EQ(prompt_tokens(RunSwiftKv({"chat", Path("base"), "-p", "hi", "--json", "-n", "2", "--chat-template-kwargs",
                                      "{\"add_generation_prompt\": false}"})),
            std::string("[user] hi ").size());
  EXPECT_EQ(prompt_tokens(RunSwiftKv({"generate", Path("base"), "hi", "--chat", "--json", "-n", "2"})),
            std::string("[user] hi [assistant] ").size());
}

// tests/golden/engine/smollm2_greedy.json, made by tools/make_generate_goldens.py with transformers.
TEST_F(CliTest, GreedyTextOfTheDefaultModelEqualsTransformers) {
  if (RunSwiftKv({"inspect", "smollm2-135m"}).exit_code != 0) GTEST_SKIP() << "scripts/setup fetches the default model";
  const Json cases = Json::parse(std::ifstream(SWIFTKV_SOURCE_DIR "/tests/golden/engine/smollm2_greedy.json"));
  ASSERT_GE(cases.size(), 6u);
  for (const Json& golden : cases) {
    std::vector<std::string> arguments = {"generate", "smollm2-135m", "--dtype", "f32", "--json", "--prompt"};
    arguments.push_back(golden["prompt"]);
    arguments.insert(arguments.end(), {"--max-tokens", std::to_string(golden["max_tokens"].get<int>())});
    if (golden["chat"].get<bool>()) arguments.emplace_back("--chat");
    const ProcessResult result = RunSwiftKv(arguments);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json json = Json::parse(result.out);
    EXPECT_EQ(json["token_ids"], golden["token_ids"]) << golden["prompt"];
    EXPECT_EQ(json["text"], golden["text"]);
    EXPECT_EQ(json["usage"]["prompt_tokens"], golden["prompt_token_ids"].size());
  }
}

TEST_F(CliTest, InspectNeedsNoWeights) {
  const ProcessResult result = RunSwiftKv({"inspect", Path("swiftkv"), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["num_key_value_layers"], 2);
  EXPECT_EQ(json["key_value_group_size"], 2);
  const int64_t base = 96 * 32 + 4 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32) + 32;
  EXPECT_EQ(json["parameters"]["base"], base);
  EXPECT_EQ(json["parameters"]["swiftkv"], 32 + 2 * 32 * 32 + 2 * 16 * 32);
  EXPECT_EQ(json["stored_elements"]["F32"], base + 32 + 2 * 32 * 32 + 2 * 16 * 32);
  EXPECT_EQ(json["kv_bytes_per_token_bf16"]["base"], 2 * 2 * 16 * 4);
  EXPECT_EQ(json["kv_bytes_per_token_bf16"]["swiftkv"], 2 * 2 * 16 * 3);
  EXPECT_EQ(json["chat_template"], true);
  EXPECT_THAT(RunSwiftKv({"inspect", Path("swiftkv")}).out, HasSubstr("L = 4, n = 2, g = 2"));
  EXPECT_THAT(RunSwiftKv({"inspect", Path("base"), "--adapter", Path("adapter")}).out, HasSubstr("n = 2"));
}

TEST_F(CliTest, DoctorDescribesTheMachine) {
  const std::vector<std::string> environment = {"SWIFTKV_ISA=ref", "HF_HUB_CACHE=", "HF_HOME=", "XDG_CACHE_HOME=/xdg"};
  const ProcessResult result = RunSwiftKv({"doctor", "--json"}, {.environment = environment});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["isa"]["chosen"], "ref");
  EXPECT_GT(json["memory"]["total_bytes"], 0);
  EXPECT_GE(json["threads"], 1);
  EXPECT_EQ(json["hub_cache"]["path"], "/xdg/huggingface/hub");
  const ProcessResult absent = RunSwiftKv({"doctor"}, {.environment = {"SWIFTKV_HOME=/nowhere"}});
  EXPECT_THAT(absent.out, AllOf(HasSubstr("is not there"), HasSubstr("of a package, share/swiftkv/get-default-model")));
  const ProcessResult wrong = RunSwiftKv({"doctor"}, {.environment = {"SWIFTKV_ISA=quantum"}});
  EXPECT_EQ(wrong.exit_code, 0) << "a doctor describes what is wrong";
  EXPECT_THAT(wrong.out, HasSubstr("quantum"));
  EXPECT_EQ(Generate({"x"}, {.environment = {"SWIFTKV_ISA=quantum"}}).exit_code, 2);
}

}  // namespace
}  // namespace swiftkv
