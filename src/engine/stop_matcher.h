// Ends a growing text before the first stop string, and holds back what may still become one.
//
//   StopMatcher matcher({"\n\n", "User:"});
//   emit(matcher.Push("answer\n"));   // "answer": the newline waits
//   emit(matcher.Push("Us"));         // "\n"
//   if (matcher.matched()) ...        // Push has returned the text before the stop string
#ifndef SWIFTKV_ENGINE_STOP_MATCHER_H_
#define SWIFTKV_ENGINE_STOP_MATCHER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace swiftkv {

// The result depends on the text alone, not on how it was cut into pieces: the stop string that is complete first wins,
// the longest of those that are complete at the same byte. Work per byte is the number of stop strings (Knuth, Morris
// and Pratt's automaton each), whatever the text.
class StopMatcher {
 public:
  StopMatcher() = default;
  // Strings must not be empty.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Text that is certain to be output. Nothing more comes once a stop string has matched. `may_match` false: stop
  // strings that are complete within this piece do not count, those that begin in it do.
  std::string Push(std::string_view piece, bool may_match = true);
  // The text held back, when the output ends for another reason.
  std::string Finish();
  // The stop string that matched, null while none has.
  const std::string* matched() const { return matched_ < 0 ? nullptr : &patterns_[matched_].text; }

 private:
  struct Pattern {
    std::string text;
    std::vector<int32_t> border;  // [i]: length of the longest proper prefix of text[0..i] that is also its suffix
    int32_t state = 0;            // length of the longest prefix of `text` that ends the text so far
    bool Advance(char byte);      // true: `text` is complete
  };
  std::vector<Pattern> patterns_;
  std::string held_;
  int32_t matched_ = -1;
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_STOP_MATCHER_H_
