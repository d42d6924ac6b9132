// Small functions on text that lm-eval's tasks are made of: filters that find the answer in a response, and the
// normalization before texts are compared. Each is equal to the Python expression named beside it (filters_test.cc
// checks them against lm-eval's own). Text is UTF-8.
#ifndef SWIFTKV_EVAL_FILTERS_H_
#define SWIFTKV_EVAL_FILTERS_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace swiftkv {

// What a filter returns where nothing matches.
inline constexpr std::string_view kInvalidAnswer = "[invalid]";

// str.strip()
std::string_view Strip(std::string_view text);
// str.replace(from, to): from left to right, once.
std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to);
// str.capitalize(), for ASCII letters; others stay as they are.
std::string Capitalize(std::string_view text);
// len(str): Unicode characters.
int64_t Characters(std::string_view text);

// Regex `([ABCD])`, the first match.
std::string FirstLetter(std::string_view text);
// Regex `The best answer is ([ABCD])`, the first match.
std::string BestAnswer(std::string_view text);
// Regex `PREFIX(\-?[0-9\.\,]+)`, the first match; with `closed` one more character, `.`, must follow the group.
std::string NumberAfter(std::string_view text, std::string_view prefix, bool closed);
// Regex `(-?[$0-9.,]{2,})|(-?[0-9]+)`, the last match.
std::string LastNumber(std::string_view text);

// exact_match of the gsm8k tasks: ignore_case, and regexes_to_ignore `,`, `\$`, `(?s).*#### `, `\.$`, in this order.
std::string NormalizeNumber(std::string_view text);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_FILTERS_H_
