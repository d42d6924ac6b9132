// The word patterns by hand against the same regular expressions in PCRE2.
#include "text/word_splitter.h"

#include <gtest/gtest.h>

#include <random>

#include "text/pattern.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

constexpr const char* kRegexes[] = {
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
};

// Letters, digits, spaces of all kinds, marks and symbols, dense enough that every alternative is met.
std::string RandomText(std::mt19937& random) {
  static const std::u32string kChars =
      U"aZsSlLdDmMtTrReEvV''''    "
      U"\t\n\n\r\r\v\u0085\u00a0\u2028\u3000\u180e\u200b0123\u0663\u00b2\u2167\u00bd.,!-_([\"\u2026"
      U"\u00e9\u017f\u0301\u0323\u05d0\u0915\u093f\u4f60\uac00\U0001f469\U0001d400\u212a";
  std::string text;
  const size_t length = random() % 24;
  for (size_t i = 0; i < length; ++i) AppendUtf8(kChars[random() % kChars.size()], text);
  return text;
}

TEST(WordSplitterTest, MatchesTheRegularExpressions) {
  std::mt19937 random(1);
  for (const char* regex : kRegexes) {
    ASSERT_TRUE(FindWordPattern(regex));
    const auto pcre = Pattern::FromRegex(std::string("(?:") + regex + ")");  // in brackets it goes to PCRE2
    const auto words = Pattern::FromRegex(regex);
    ASSERT_TRUE(pcre && words);
    for (int i = 0; i < 20'000; ++i) {
      const std::string text = RandomText(random);
      std::vector<PatternMatch> expected;
      std::vector<PatternMatch> found;
      pcre->FindAll(text, expected);
      words->FindAll(text, found);
      ASSERT_EQ(found.size(), expected.size()) << regex << " on " << testing::PrintToString(text);
      for (size_t k = 0; k < found.size(); ++k) {
        ASSERT_EQ(found[k].begin, expected[k].begin) << testing::PrintToString(text);
        ASSERT_EQ(found[k].end, expected[k].end) << testing::PrintToString(text);
      }
    }
  }
}

TEST(PatternTest, RefusesWhatPcre2WouldReadDifferently) {
  for (const char* regex : {"[a-z&&[^x]]", "[a[b]]", R"([^\S])", "(", "[[:alpha:"}) {
    EXPECT_FALSE(Pattern::FromRegex(regex)) << regex;
  }
}

TEST(PatternTest, EmptyMatchesEndAndDoNotRepeat) {
  const auto pattern = Pattern::FromRegex("(?=[A-Z])|b*");
  ASSERT_TRUE(pattern);
  std::vector<PatternMatch> matches;
  pattern->FindAll("bbAé", matches);
  ASSERT_EQ(matches.size(), 3u);
  EXPECT_EQ(matches[0].end, 2u);
  EXPECT_EQ(matches[1].begin, 3u);
  EXPECT_EQ(matches[2].begin, 5u);
}

}  // namespace
}  // namespace swiftkv
