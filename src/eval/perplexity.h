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

// lm-eval's rolling log-likelihood: the text is cut into windows of the context's length without overlap, and each
// token is predicted from those of its window before it; the first from the last token of the window before, or BOS
// (else the end of sequence). Errors: those of Engine; kInvalidInput (no tokens); kCancelled.
Result<TextPerplexity> MeasurePerplexity(const Variant& variant, const NamedText& text,
                                         const EvaluationOptions& options);

// Windows of at most `length` tokens to run, each with the token that it is conditioned on first.
std::vector<std::vector<int32_t>> RollingWindows(const std::vector<int32_t>& token_ids, int32_t first_condition,
                                                 int64_t length);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_PERPLEXITY_H_
