#include "engine/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "engine/utf8.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;

std::string Complaint(const SamplingParams& params) {
  const Status status = Validate(params, 100);
  if (status) return "";
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidInput);
  return status.error().message;
}

TEST(ValidateTest, DefaultsAndLimitsAreAccepted) {
  EXPECT_EQ(Complaint({}), "");
  EXPECT_EQ(Complaint({.n = 128,
                       .temperature = 0,
                       .top_k = -1,
                       .top_p = 1,
                       .min_p = 1,
                       .max_tokens = 0,
                       .stop = {"é"},
                       .stop_token_ids = {0, 99},
                       .logit_bias = {{99, -100.0f}},
                       .logprobs = 20}),
            "");
}

TEST(ValidateTest, EachWrongParameterIsNamed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(Complaint({.n = 0}), HasSubstr("n is 0"));
  EXPECT_THAT(Complaint({.temperature = -1}), HasSubstr("temperature is -1"));
  EXPECT_THAT(Complaint({.temperature = nan}), HasSubstr("temperature"));
  EXPECT_THAT(Complaint({.top_k = -2}), HasSubstr("top_k is -2"));
  EXPECT_THAT(Complaint({.top_p = 0}), HasSubstr("top_p is 0"));
  EXPECT_THAT(Complaint({.top_p = nan}), HasSubstr("top_p"));
  EXPECT_THAT(Complaint({.min_p = 1.5}), HasSubstr("min_p is 1.5"));
  EXPECT_THAT(Complaint({.repetition_penalty = 0}), HasSubstr("repetition_penalty"));
  EXPECT_THAT(Complaint({.presence_penalty = 3}), HasSubstr("presence_penalty is 3"));
  EXPECT_THAT(Complaint({.frequency_penalty = nan}), HasSubstr("frequency_penalty"));
  EXPECT_THAT(Complaint({.max_tokens = -1}), HasSubstr("max_tokens is -1"));
  EXPECT_THAT(Complaint({.max_tokens = 2, .min_tokens = 3}), HasSubstr("min_tokens is 3, more than max_tokens 2"));
  EXPECT_THAT(Complaint({.stop = {""}}), HasSubstr("empty string"));
  EXPECT_THAT(Complaint({.stop = {"\xff"}}), HasSubstr("UTF-8"));
  EXPECT_THAT(Complaint({.stop = std::vector<std::string>(65, "x")}), HasSubstr("limit is 64"));
  EXPECT_THAT(Complaint({.stop = {std::string(1025, 'x')}}), HasSubstr("limit is 1024"));
  EXPECT_THAT(Complaint({.stop_token_ids = {100}}), HasSubstr("token 100; the vocabulary has 0 to 99"));
  EXPECT_THAT(Complaint({.logit_bias = {{-1, 0.0f}}}), HasSubstr("token -1"));
  EXPECT_THAT(Complaint({.logit_bias = {{1, 101.0f}}}), HasSubstr("logit_bias is 101"));
  EXPECT_THAT(Complaint({.logprobs = 21}), HasSubstr("logprobs is 21"));
}

// Markus Kuhn's UTF-8 stress test: boundaries, overlong forms, surrogates, stray and missing continuations.
TEST(Utf8Test, FindsTheFirstInvalidByte) {
  EXPECT_EQ(FirstInvalidUtf8("plain, é, €, 𝄞, \xf4\x8f\xbf\xbf, \xed\x9f\xbf, \xee\x80\x80"), std::nullopt);
  EXPECT_EQ(FirstInvalidUtf8(std::string_view("\0a", 2)), std::nullopt);
  for (const char* bad : {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xfe", "\xe2\x82", "\xc3", "\xf0\x9d\x84"}) {
    EXPECT_EQ(FirstInvalidUtf8(std::string("ab") + bad), 2u);
    EXPECT_EQ(FirstInvalidUtf8(std::string("ab") + bad + "z"), 2u);
  }
}

}  // namespace
}  // namespace swiftkv
