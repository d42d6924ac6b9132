#include "distill/loss_curve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "base/process.h"
#include "checkpoint/test_files.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr char kHostileName[] = "it's `touch pwned` \"$(touch pwned)\" @x \\ _{a}\nset output '/tmp/x'\n%d |x";

Metrics SomeMetrics(int64_t steps) {
  Metrics metrics;
  for (int64_t step = 1; step <= steps; ++step) {
    metrics.steps.push_back(
        {.step = step, .loss = 2.0 / static_cast<double>(step), .kl = 1.0, .agreement = 0.5, .learning_rate = 1e-3});
  }
  for (const char* source : {"novels", kHostileName}) {
    for (const int64_t step : {int64_t{0}, steps}) {
      metrics.held_out.push_back({.step = step, .source = source, .quality = {.kl = 0.25, .agreement = 0.75}});
    }
  }
  return metrics;
}

// PATH for the length of a test.
class ProgramPath {
 public:
  explicit ProgramPath(const std::string& path) { setenv("PATH", path.c_str(), 1); }
  ~ProgramPath() { setenv("PATH", old_.c_str(), 1); }
  ProgramPath(const ProgramPath&) = delete;
  ProgramPath& operator=(const ProgramPath&) = delete;

 private:
  std::string old_ = getenv("PATH");
};

TEST(LossCurveTest, FiguresAreInBlocks) {
  Metrics metrics = SomeMetrics(2);
  metrics.steps[1].loss = std::nan("");
  EXPECT_EQ(LossCurveData(metrics),
            "# step\tloss\tKL\tagreement in %\tlearning rate\n"
            "1\t2\t1\t50\t0.001\n2\tnan\t1\t50\t0.001\n"
            "\n\n# held-out novels: step\tKL\tagreement in %\n0\t0.25\t75\n2\t0.25\t75\n"
            "\n\n# held-out it's `touch pwned` \"$(touch pwned)\" @x \\ _{a}?set output '/tmp/x'?%d |x: step\tKL\t"
            "agreement in %\n0\t0.25\t75\n2\t0.25\t75\n");
}

TEST(LossCurveTest, ALongRunIsAveraged) {
  Metrics metrics = SomeMetrics(2500);
  for (StepMetrics& step : metrics.steps) step.loss = static_cast<double>(step.step % 2);
  metrics.held_out.clear();
  const std::string data = LossCurveData(metrics);
  EXPECT_EQ(std::count(data.begin(), data.end(), '\n'), 1 + kMaxCurvePoints);
  EXPECT_THAT(data, HasSubstr("\n2\t0.5\t1\t50\t0.001\n5\t"));
  EXPECT_THAT(data, HasSubstr("\n2500\t"));
}

TEST(LossCurveTest, GnuplotDrawsBothPicturesAndRunsNoCommandInAName) {
  if (!RunProgram({"gnuplot", "--version"}, {})) GTEST_SKIP() << "no gnuplot here";
  const TemporaryFolder folder;
  for (const int64_t steps : {300, 1, 0}) {
    const Result<std::string> warning = DrawLossCurve(folder.path(), SomeMetrics(steps));
    ASSERT_TRUE(warning) << warning.error().message;
    EXPECT_EQ(*warning, "");
    const std::string svg = *ReadFile(folder.path() + "/loss_curve.svg", 1 << 20);
    for (const char* part : {"held-out novels", "held-out it's `touch pwned`", "</svg>"}) {
      EXPECT_NE(svg.find(part), std::string::npos) << part;
    }
    EXPECT_TRUE(ReadFile(folder.path() + "/loss_curve.png", 1 << 20)->starts_with("\x89PNG"));
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 4);
  }
}

TEST(LossCurveTest, WithoutGnuplotScriptAndFiguresAreLeft) {
  const TemporaryFolder folder, programs;
  folder.Write("loss_curve.svg", "of another run");
  const ProgramPath path(programs.path());
  Result<std::string> warning = DrawLossCurve(folder.path(), SomeMetrics(3));
  ASSERT_TRUE(warning);
  EXPECT_THAT(*warning, HasSubstr("gnuplot is not installed"));
  EXPECT_TRUE(fs::exists(folder.path() + "/loss_curve.gp"));
  EXPECT_TRUE(fs::exists(folder.path() + "/loss_curve.tsv"));
  EXPECT_FALSE(fs::exists(folder.path() + "/loss_curve.svg"));

  const std::string program = programs.Write("gnuplot", "#!/bin/sh\necho 'no such terminal' >&2\nexit 1\n");
  chmod(program.c_str(), 0755);
  warning = DrawLossCurve(folder.path(), SomeMetrics(3));
  ASSERT_TRUE(warning);
  EXPECT_THAT(*warning, HasSubstr("gnuplot failed (1: no such terminal"));
}

TEST(LossCurveTest, NothingToDrawIsSaidAndAFullDiskIsAnError) {
  const TemporaryFolder folder;
  EXPECT_THAT(*DrawLossCurve(folder.path(), {}), HasSubstr("nothing to draw"));
  EXPECT_FALSE(DrawLossCurve(folder.path() + "/missing", SomeMetrics(1)));
}

}  // namespace
}  // namespace swiftkv
