// Regular expressions against what Hugging Face `tokenizers` makes of them: tests/golden/pattern, by
// tools/make_pattern_goldens.py.
#include "text/pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"

namespace swiftkv {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::string ErrorOf(const std::string& regex) {
  const auto pattern = Pattern::FromRegex(regex);
  return pattern ? "no error" : pattern.error().message;
}

// The matches, and what lies between them.
std::vector<std::string> Pieces(const Pattern& pattern, const std::string& text) {
  std::vector<PatternMatch> matches;
  pattern.FindAll(text, matches);
  std::vector<std::string> pieces;
  size_t done = 0;
  const auto add = [&](size_t end) {
    if (end > done) pieces.push_back(text.substr(done, end - done));
    done = end;
  };
  for (const PatternMatch& match : matches) {
    add(match.begin);
    add(match.end);
  }
  add(text.size());
  return pieces;
}

TEST(PatternTest, SplitsAsTokenizersOrIsRefused) {
  const std::set<std::string> refused = {
      "(?i:ss)",     "(?i:fi)", "(?i:ß)",  "(?i:[ß])", "(?i)\\x73s",
      "(?i:f(?:i))", "(?i:sS)", "(?i:st)", "(?i)ʼn",   "(?i:a|office)",
  };
  const auto file = ReadFile(SWIFTKV_SOURCE_DIR "/tests/golden/pattern/patterns.json", 1 << 20);
  ASSERT_TRUE(file) << file.error().message;
  const json cases = json::parse(*file);
  ASSERT_GT(cases.size(), 100u);
  for (const json& golden : cases) {
    const std::string regex = golden["regex"];
    SCOPED_TRACE(regex);
    const auto pattern = Pattern::FromRegex(regex);
    ASSERT_EQ(pattern.has_value(), !refused.contains(regex)) << ErrorOf(regex);
    if (!pattern) continue;
    for (const json& text : golden["texts"]) {
      EXPECT_EQ(Pieces(*pattern, text["text"]), text["pieces"].get<std::vector<std::string>>()) << text.dump();
    }
  }
}

TEST(PatternTest, RefusalsNameWhatIsNotSupported) {
  EXPECT_THAT(ErrorOf("a(?i:office)"), HasSubstr("'ff' in either case"));
  EXPECT_THAT(ErrorOf("(?x) a"), HasSubstr("'(?x' is not supported"));
  EXPECT_THAT(ErrorOf("(?W:\\w)"), HasSubstr("'(?W' is not supported"));
  EXPECT_THAT(ErrorOf("(?i"), HasSubstr("unfinished option"));
  EXPECT_THAT(ErrorOf("(*ACCEPT)"), HasSubstr("'(*' is not supported"));
  EXPECT_THAT(ErrorOf("\\Qa\\E"), HasSubstr("'\\Q' is not supported"));
  EXPECT_THAT(ErrorOf("\\pL"), HasSubstr("'\\pL' is not supported"));
  EXPECT_THAT(ErrorOf("\\xc3\\xa9"), HasSubstr("'\\xc3' is not supported"));
  EXPECT_THAT(ErrorOf("[\\S]"), HasSubstr("'\\S' inside a character class"));
  EXPECT_THAT(ErrorOf("[a[b]]"), HasSubstr("nested character classes"));
  EXPECT_THAT(ErrorOf("[[:^alpha:]]"), HasSubstr("'[:^alpha:]' is not supported"));
  for (const char* wrong : {"(", ")", "a)", "[a", "\\", "(?", "(?é", "a{3,1}", "(?#", "\\u12", "\\x{110000}", "\\c",
                            "\\p{L", "(?<n", "\\k<", "(?~ab)"}) {
    EXPECT_NE(ErrorOf(wrong), "no error") << wrong;
  }
}

TEST(PatternTest, RepetitionsOfRepetitionsStaySmall) { EXPECT_NE(ErrorOf("a" + std::string(16000, '*')), "no error"); }

}  // namespace
}  // namespace swiftkv
