#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/convert_report.h"
#include "cli/distill_report.h"
#include "cli/report_parts.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

using testing::HasSubstr;
using testing::Not;

Quality QualityOf(double kl) {
  return {.tokens = 100, .kl = kl, .agreement = 0.875, .teacher_nll = 2, .student_nll = 2 + std::log(1.04)};
}

ModelConfig Student(int64_t n, int64_t g) { return *StudentConfig(TinyConfig(), n, g); }

DistillReport SomeReport() {
  DistillReport report;
  report.origin = "smollm2-135m";
  report.student = Student(2, 2);
  report.options = {.folder = "out", .adapter = true};
  report.start = "a calibrated conversion";
  report.command = "swiftkv distill smollm2-135m --data novels.txt -o out";
  report.recipe = "logits_loss_temp: 2\n";
  report.sources = {{"novels|old.txt", "trained on", "public domain"}, {"peps.txt", "held out", ""}};
  report.steps = 50;
  report.tokens = 204800;
  report.seconds = 128;
  report.before = {{.step = 0, .source = "peps.txt", .quality = QualityOf(0.5)},
                   {.step = 0, .source = "novels", .quality = QualityOf(0.25)}};
  report.quality = {{.step = 50, .source = "novels", .quality = QualityOf(0.125)},
                    {.step = 50, .source = "peps.txt", .quality = QualityOf(0.25)}};
  report.loss_curve = "loss_curve.svg";
  return report;
}

TEST(DistillReportTest, TheCardSaysWhatItIsHowGoodAndHowItWasMade) {
  const std::string card = DistillModelCard(SomeReport());
  for (const char* part : {
           "# SwiftKV adapter of smollm2-135m\n",
           "SingleInputKV and AcrossKV (arXiv 2410.03960): prompt tokens run 2 of 6 layers",
           "| num_key_value_layers / num_hidden_layers | 2 / 6 |\n| key_value_group_size | 2 |\n",
           "| start | a calibrated conversion |\n| training | 50 steps, 204800 tokens, 2:08 (1600 tok/s) |\n",
           "| held-out text | tokens | KL(base, SwiftKV) | before training | top-1 agreement |",
           "| novels | 100 | 0.1250 | 0.2500 | 87.5 % | 7.68 | 7.39 | +4.0 % |\n",
           "| peps.txt | 100 | 0.2500 | 0.5000 | 87.5 % |",
           "| mean | 200 | 0.1875 | 0.3750 | 87.5 % |",
           "![loss by step](loss_curve.svg)",
           "```\nswiftkv chat smollm2-135m --adapter DIR\n```",
           "| novels\\|old.txt | trained on | public domain |\n| peps.txt | held out | not stated |\n",
           "```\nswiftkv distill smollm2-135m --data novels.txt -o out\n```",
           "```yaml\nlogits_loss_temp: 2\n```",
       }) {
    EXPECT_THAT(card, HasSubstr(part));
  }
}

TEST(DistillReportTest, WhatIsNotKnownIsLeftOut) {
  DistillReport report = SomeReport();
  report.options.adapter = false;
  report.before.clear();
  report.quality.pop_back();
  report.sources.clear();
  report.loss_curve.clear();
  report.seconds = 0;
  const std::string card = DistillModelCard(report);
  EXPECT_THAT(card, HasSubstr("# SwiftKV version of"));
  EXPECT_THAT(card, HasSubstr("swiftkv chat DIR\n"));
  EXPECT_THAT(card, HasSubstr("| novels | 100 | 0.1250 | 87.5 % |"));
  for (const char* part : {"before training", "| mean |", "## Data", "![", "nan", "inf"}) {
    EXPECT_THAT(card, Not(HasSubstr(part)));
  }
  report.quality.clear();
  EXPECT_THAT(DistillModelCard(report), Not(HasSubstr("## Quality")));
}

TEST(DistillReportTest, TextAndJsonAgree) {
  const DistillReport report = SomeReport();
  const std::string text = DistillReportText(report);
  EXPECT_THAT(text, HasSubstr("training           50 steps, 204800 tokens, 2:08 (1600 tok/s)\n"));
  EXPECT_THAT(text, HasSubstr("novels             KL 0.1250, top-1 agreement 87.5 %, perplexity 7.68 (base 7.39)"));
  const auto json = nlohmann::json::parse(DistillReportJson(report));
  EXPECT_EQ(json["held_out"]["novels"]["kl"], 0.125);
  EXPECT_EQ(json["held_out"]["novels"]["before_training"]["kl"], 0.25);
  EXPECT_EQ(json["tok_s"], 1600);
  // norm_swiftkv [32], four q [32, 32], two k and two v [16, 32]
  EXPECT_EQ(json["trained_parameters"], 32 + 4 * 32 * 32 + 4 * 16 * 32);
}

TEST(ConvertReportTest, TheCardHasEveryKindOfText) {
  ConvertReport report;
  report.origin = "base";
  report.student = Student(3, 1);
  report.init = "calibrated";
  report.text = "some text";
  report.calibration_tokens = 10;
  report.kinds = {{"novels", QualityOf(0.25)}};
  EXPECT_THAT(ModelCard(report), HasSubstr("| novels | 100 | 0.2500 | 87.5 % | 7.68 | 7.39 | +4.0 % |"));
  EXPECT_THAT(ModelCard(report), HasSubstr("| calibration | some text; token weights head, ridge 0 |"));
  EXPECT_THAT(ModelCard(report), Not(HasSubstr("| mean |")));
  report.kinds.push_back({"dialogues", QualityOf(0.75)});
  EXPECT_THAT(ModelCard(report), HasSubstr("| mean | 200 | 0.5000 |"));
}

TEST(ReportPartsTest, NothingInATextEndsItsBlockOrCell) {
  EXPECT_EQ(CodeBlock("a: 1", "yaml"), "```yaml\na: 1\n```\n");
  EXPECT_EQ(CodeBlock("a\n````\n# b\n", ""), "`````\na\n````\n# b\n`````\n");
  EXPECT_EQ(MarkdownCell("a|b\n`c` <img> [x](y)"), "a\\|b \\`c\\` \\<img> \\[x](y)");
}

}  // namespace
}  // namespace swiftkv
