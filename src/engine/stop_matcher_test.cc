#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>

namespace swiftkv {
namespace {

struct Outcome {
  std::string text;
  std::string matched;  // empty: none
  bool operator==(const Outcome&) const = default;
};

Outcome Match(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string& piece : pieces) outcome.text += matcher.Push(piece);
  outcome.text += matcher.Finish();
  if (matcher.matched() != nullptr) outcome.matched = *matcher.matched();
  return outcome;
}

// The definition: the occurrence that ends first, the longest of those that end at the same byte.
Outcome Expected(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::string> best;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop) && (!best || stop.size() > best->size())) best = stop;
    }
    if (best) return {text.substr(0, end - best->size()), *best};
  }
  return {text, ""};
}

TEST(StopMatcherTest, HoldsBackWhatMayBecomeAStopString) {
  StopMatcher matcher({"\n\n", "User:"});
  EXPECT_EQ(matcher.Push("answer\n"), "answer");
  EXPECT_EQ(matcher.Push("Us"), "\n");
  EXPECT_EQ(matcher.Push("ual U"), "Usual ");
  EXPECT_EQ(matcher.matched(), nullptr);
  EXPECT_EQ(matcher.Push("ser: more"), "");
  ASSERT_NE(matcher.matched(), nullptr);
  EXPECT_EQ(*matcher.matched(), "User:");
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, WhatIsCompleteTooEarlyDoesNotCountWhatBeginsEarlyDoes) {
  StopMatcher matcher({"aa", "Paris."});
  EXPECT_EQ(matcher.Push("aa Pari", false), "aa ");
  EXPECT_EQ(matcher.Push("s", false), "");
  EXPECT_EQ(matcher.Push(". More"), "");
  ASSERT_NE(matcher.matched(), nullptr);
  EXPECT_EQ(*matcher.matched(), "Paris.");

  StopMatcher overlapping({"aa"});
  EXPECT_EQ(overlapping.Push("aa", false), "a") << "its last letter may begin another";
  EXPECT_EQ(overlapping.Push("a"), "");
  EXPECT_NE(overlapping.matched(), nullptr);
}

TEST(StopMatcherTest, WithoutStopStringsTextPassesAtOnce) {
  StopMatcher matcher;
  EXPECT_EQ(matcher.Push("all of it"), "all of it");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, TheHeldTextComesWhenTheOutputEnds) {
  EXPECT_EQ(Match({"stop"}, {"do not st", "o"}), (Outcome{"do not sto", ""}));
}

TEST(StopMatcherTest, EqualsTheDefinitionHoweverTheTextIsCut) {
  std::mt19937 random(1);
  const auto letters = [&](int length) {
    std::string text;
    for (int i = 0; i < length; ++i) text.push_back(static_cast<char>('a' + random() % 2));
    return text;
  };
  int matches = 0;
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(letters(1 + static_cast<int>(random() % 7)));
    const std::string text = letters(30);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + random() % 5;
      pieces.push_back(text.substr(at, length));
      at += length;
    }
    const Outcome expected = Expected(stops, text);
    matches += expected.matched.empty() ? 0 : 1;
    ASSERT_EQ(Match(stops, pieces), expected) << text;
  }
  EXPECT_GT(matches, 500);
  EXPECT_LT(matches, 2000);
}

}  // namespace
}  // namespace swiftkv
