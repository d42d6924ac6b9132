// What the engine asks of a model that draws tokens where its logits are: draws of plain samplers, the rows of the
// others, and no place for rows that nobody reads.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/stub_model.h"

namespace swiftkv {
namespace {

// Draws the stub's own token, so that every answer is known. Writes the rows that are wanted and no others.
class DrawingModel final : public ModelRunner {
 public:
  DrawingModel() : traits_(stub_.traits()) { traits_.draws_tokens = true; }

  const ModelTraits& traits() const override { return traits_; }
  Status Run(const Step& step, KvCache* cache) override { return stub_.Run(step, cache); }
  Status ReadLogits(int64_t begin, int64_t count, const LogitReads& reads) override {
    std::vector<float> logits(static_cast<size_t>(count * StubModel::kVocab));
    SWIFTKV_RETURN_IF_ERROR(
        stub_.ReadLogits(begin, count, {.logits = logits.data(), .wanted = {}, .stats = reads.stats}));
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const bool draws = !reads.draws.empty() && reads.draws[i].temperature > 0;
      if (draws) reads.tokens[i] = reads.stats[i].argmax;
      if (draws) draws_.push_back(reads.draws[i]);
      const size_t row = i * StubModel::kVocab;
      if (reads.wanted[i] != 0) std::copy_n(logits.data() + row, StubModel::kVocab, reads.logits + row);
      rows_ += reads.wanted[i];
      places_ += reads.logits != nullptr ? 1 : 0;
    }
    return Ok();
  }

  StubModel stub_;
  ModelTraits traits_;
  std::vector<kernels::TokenDraw> draws_;  // that were asked for
  int rows_ = 0;                           // that were wanted
  int places_ = 0;                         // of rows for which there was memory
};

class DeviceDrawTest : public testing::Test {
 protected:
  DeviceDrawTest() {
    auto model = std::make_unique<DrawingModel>();
    model_ = model.get();
    engine_ = *Engine::Create(std::move(model), nullptr, {.max_model_len = 256});
  }
  // Checks that the answer is the stub's.
  void Answer(SamplingParams sampling) {
    sampling.max_tokens = 6;
    sampling.seed = 5;
    const Request request{.prompt_token_ids = {1, 2, 3}, .sampling = sampling};
    const auto results = engine_->Generate({request});
    ASSERT_TRUE(results.has_value()) << results.error().message;
    EXPECT_EQ(results->front().completions.front().token_ids, StubModel::Answer(request));
  }

  DrawingModel* model_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

TEST_F(DeviceDrawTest, GreedyAnswersNeedNeitherRowsNorDraws) {
  Answer({.temperature = 0});
  EXPECT_EQ(model_->rows_, 0);
  EXPECT_EQ(model_->places_, 0);
  EXPECT_TRUE(model_->draws_.empty());
}

TEST_F(DeviceDrawTest, PlainSamplersAreDrawn) {
  Answer({.temperature = 0.7, .top_k = 5, .top_p = 0.9, .min_p = 0.25});
  EXPECT_EQ(model_->rows_, 0);
  ASSERT_EQ(model_->draws_.size(), 6U);
  const kernels::TokenDraw& draw = model_->draws_.front();
  EXPECT_FLOAT_EQ(draw.temperature, 0.7F);
  EXPECT_EQ(draw.top_k, 5);
  EXPECT_FLOAT_EQ(draw.top_p, 0.9F);
  EXPECT_FLOAT_EQ(draw.min_p, 0.25F);
  for (size_t i = 1; i < 6; ++i) EXPECT_NE(model_->draws_[i].uniform, draw.uniform);
}

TEST_F(DeviceDrawTest, RowsComeWhereLogitsAreChanged) {
  Answer({.temperature = 0.001, .logit_bias = {{4, -0.5F}}});
  EXPECT_EQ(model_->rows_, 6);
  EXPECT_TRUE(model_->draws_.empty());
}

TEST_F(DeviceDrawTest, LogprobsBringTheRowBesideTheDraw) {
  Answer({.temperature = 1, .logprobs = 2});
  EXPECT_EQ(model_->rows_, 6);
  EXPECT_EQ(model_->draws_.size(), 6U);
}

}  // namespace
}  // namespace swiftkv
