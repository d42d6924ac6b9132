// Perplexity of any text.
//
//   SWIFTKV_ASSIGN_OR_RETURN(TextPerplexity result, MeasurePerplexity(base, {.name = "book.txt", .text = book},
//   options));
#ifndef SWIFTKV_EVAL_PERPLEXITY_H_
#define SWIFTKV_EVAL_PERPLEXITY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/evaluation.h"

namespace swiftkv {

struct NamedText {
  std::string name;
  std::string text;  // UTF-8
};

struct TextPerplexity {
  std::string text;     // its name
  std::string variant;  // "base", "swiftkv"
  int64_t tokens = 0;   // scored
  int64_t words = 0;    // separated by white space
  int64_t bytes = 0;
  double loglikelihood = 0;  // natural, of all tokens
  std::vector<double> window_loglikelihoods = {};

  double token_perplexity() const;
  double word_perplexity() const;  // these three are lm-eval's
  double byte_perplexity() const;
  double bits_per_byte() const;
};

// lm-eval's rolling log-likelihood (RollingWindows) with max_length MaxModelLen; the text's first token is predicted
// from BOS (else the end of sequence). The engine runs a window's last token, too, so that windows of the model's whole
// context are a token shorter than lm-eval's. Errors: those of Engine; kInvalidInput (no tokens); kCancelled.
Result<TextPerplexity> MeasurePerplexity(const Variant& variant, const NamedText& text,
                                         const EvaluationOptions& options);

struct RollingWindow {
  std::vector<int32_t> token_ids;
  int64_t scored_begin = 1;  // the first token of the window that counts; those before it are context
};
// lm-eval's windows (get_rolling_token_windows, make_disjoint_window): each token counts once, `length` of them a
// window, after at least one token of context. The last window, with fewer left to count, is as long as the others and
// has the rest as context. `first_condition` comes before the text.
std::vector<RollingWindow> RollingWindows(const std::vector<int32_t>& token_ids, int32_t first_condition,
                                          int64_t length);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_PERPLEXITY_H_
