// The grammar of JSON text, in pieces for a schema's compiler: each adds what leads from one state to another.
//
// What is generated is a part of JSON, so that every text of it can be read everywhere: no whitespace but one optional
// space behind `:` and `,`; numbers of at most 15 digits, and 15 behind the point, with exponents of at most 2; escapes
// \uXXXX that make whole characters.
#ifndef SWIFTKV_GRAMMAR_JSON_TEXT_H_
#define SWIFTKV_GRAMMAR_JSON_TEXT_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "grammar/automaton.h"

namespace swiftkv {

// The numbers from `low` to `high`, themselves included unless said; none: no bound.
struct NumberRange {
  std::optional<int64_t> low = {};
  std::optional<int64_t> high = {};
  bool low_excluded = false;
  bool high_excluded = false;
};
inline constexpr int64_t kMaxJsonNumber = 999'999'999'999'999;

struct StringLength {
  int64_t min = 0;  // characters
  std::optional<int64_t> max = {};
};

class JsonText {
 public:
  // `longest_token`: bytes of the vocabulary's longest token; the states of a long string that are further than that
  // from its limits allow the same tokens.
  JsonText(AutomatonBuilder* builder, size_t longest_token) : builder_(*builder), longest_token_(longest_token) {}

  // What may come behind a value or a member's name.
  static ByteSet Follows();

  void String(int32_t from, const StringLength& length, int32_t to);
  // A string that is none of `others`, without escapes.
  void OtherString(int32_t from, const std::set<std::string>& others, int32_t to);
  void Integer(int32_t from, NumberRange range, int32_t to);
  void Number(int32_t from, const NumberRange& range, int32_t to);
  // Any of some texts.
  void Texts(int32_t from, const std::set<std::string>& texts, int32_t to);
  // `separator` and an optional space; returns the state behind them.
  int32_t Separator(int32_t from, char separator);
  // Any JSON value; any object.
  Rule Value();
  Rule Object();

 private:
  void Character(int32_t from, const ByteSet& excluded_first, int32_t to);
  void Escape(int32_t from, bool unicode, int32_t to);
  void FreeString(int32_t from, int32_t to);
  void DigitRun(int32_t from, char lowest_first, char highest, int count, int32_t to);
  void NonzeroFraction(int32_t from, int32_t to);
  void DigitsBetween(int32_t from, std::string_view low, std::string_view high, int32_t to);
  void Whole(int32_t from, int64_t low, int64_t high, int32_t to);
  void Magnitude(int32_t from, const NumberRange& range, int32_t to);
  void PlainNumber(int32_t from, bool integer, int32_t to);

  AutomatonBuilder& builder_;
  size_t longest_token_;
  std::optional<Rule> string_;
  std::optional<Rule> value_;
  std::optional<Rule> object_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_JSON_TEXT_H_
