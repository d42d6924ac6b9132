#include "distill/progress.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

namespace swiftkv {
namespace {

StepMetrics StepOf(int64_t step, double seconds) {
  return {.step = step,
          .loss = 0.5,
          .kl = 0.25 + 0.5 * static_cast<double>(step % 2),
          .agreement = 0.8,
          .tokens_per_second = 1500,
          .seconds = seconds};
}

class ProgressTest : public testing::Test {
 protected:
  std::string Taken() { return std::exchange(text_, ""); }
  std::string text_;
  std::function<void(std::string_view)> write_ = [this](std::string_view text) { text_ += text; };
};

TEST_F(ProgressTest, LinesNowAndThenWithoutATerminal) {
  Progress progress({.total_steps = 100, .line_seconds = 10}, write_);
  progress.Step(StepOf(2, 4));
  EXPECT_EQ(Taken(), "step 2/100 loss 0.5000  KL 0.2500  agreement 80.0 %  1500 tok/s\n");
  progress.Step(StepOf(3, 6));
  EXPECT_EQ(Taken(), "");
  progress.Step(StepOf(4, 14));
  EXPECT_EQ(Taken(), "step 4/100 loss 0.5000  KL 0.4167  agreement 80.0 %  1500 tok/s  ETA 8:00\n");
  progress.Note("held-out novels: KL 0.2");
  EXPECT_EQ(Taken(), "held-out novels: KL 0.2\n");
  progress.Step(StepOf(5, 16));
  progress.Finish();
  EXPECT_EQ(Taken(), "step 5/100 loss 0.5000  KL 0.5000  agreement 80.0 %  1500 tok/s  ETA 6:20\n");
  progress.Finish();
  EXPECT_EQ(Taken(), "");
}

TEST_F(ProgressTest, ABarThatIsDrawnOverOnATerminal) {
  Progress progress({.total_steps = 4, .terminal = true, .columns = 200}, write_);
  progress.Step(StepOf(1, 10));
  EXPECT_EQ(Taken(), "\rstep 1/4 [####------------] loss 0.5000  KL 0.7500  agreement 80.0 %  1500 tok/s");
  progress.Step(StepOf(2, 10.01));  // too soon to draw again
  EXPECT_EQ(Taken(), "");
  progress.Step(StepOf(3, 20));
  const std::string bar = "step 3/4 [############----] loss 0.5000  KL 0.5833  agreement 80.0 %  1500 tok/s  ETA 0:05";
  EXPECT_EQ(Taken(), fmt::format("\r{}", bar));
  progress.Note("a note");  // erases the bar first, draws it again below
  EXPECT_EQ(Taken(), fmt::format("\r{}\ra note\n\r{}", std::string(bar.size(), ' '), bar));
  progress.Step(StepOf(4, 25));
  Taken();
  progress.Finish();
  EXPECT_TRUE(text_.ends_with("ETA 0:00\n")) << text_;
}

TEST_F(ProgressTest, TheBarFitsTheTerminalAndAShorterOneErasesTheRest) {
  Progress progress({.total_steps = 4, .terminal = true, .columns = 12}, write_);
  progress.Step(StepOf(1, 10));
  EXPECT_EQ(Taken(), "\rstep 1/4 [#");
}

TEST_F(ProgressTest, MeansAreOfTheLastSteps) {
  Progress progress({.total_steps = 1000, .line_seconds = 0}, write_);
  for (int64_t step = 1; step <= 200; ++step) {
    StepMetrics metrics = StepOf(step, static_cast<double>(step < 100 ? step : 100 + 5 * (step - 100)));
    metrics.loss = step < 100 ? 9 : 1;
    Taken();
    progress.Step(metrics);
  }
  EXPECT_EQ(Taken(), "step 200/1000 loss 1.0000  KL 0.5000  agreement 80.0 %  1500 tok/s  ETA 1:06:40\n");
}

TEST_F(ProgressTest, NumbersThatAreNoneDoNoHarm) {
  for (const bool terminal : {false, true}) {
    Progress progress({.total_steps = 0, .terminal = terminal, .columns = 0, .redraw_seconds = 0, .line_seconds = 0},
                      write_);
    progress.Finish();
    EXPECT_EQ(Taken(), "");
    progress.Step({});
    StepMetrics metrics = StepOf(3, std::nan(""));
    metrics.loss = std::nan("");
    progress.Step(metrics);
    progress.Finish();
    EXPECT_NE(Taken(), "");
  }
}

TEST(DurationTextTest, IsMinutesOrHours) {
  EXPECT_EQ(DurationText(0), "0:00");
  EXPECT_EQ(DurationText(59.6), "1:00");
  EXPECT_EQ(DurationText(3600 * 3 + 309), "3:05:09");
  EXPECT_EQ(DurationText(-1), "?");
  EXPECT_EQ(DurationText(std::nan("")), "?");
  EXPECT_EQ(DurationText(INFINITY), "?");
}

}  // namespace
}  // namespace swiftkv
