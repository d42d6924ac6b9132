// How close SwiftKV, fewer bits a weight or a smaller K/V cache stay to the base model on any text, position by
// position.
//
//   SWIFTKV_ASSIGN_OR_RETURN(TextFidelity result, MeasureFidelity(weights, weights, *tokenizer, text, options));
#ifndef SWIFTKV_EVAL_FIDELITY_H_
#define SWIFTKV_EVAL_FIDELITY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/perplexity.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace swiftkv {

// Of the predictions at some positions. KL is KL(base || model) at temperature 1, in nats.
struct Fidelity {
  int64_t begin = 0;  // positions [begin, end) of a window
  int64_t end = 0;
  int64_t tokens = 0;
  double mean_kl = 0;
  double kl_standard_error = 0;
  double p99_kl = 0;
  double top1_agreement = 0;  // share of positions whose most likely token is the same
  double top5_agreement = 0;  // share of base's five most likely tokens that are among the model's five
  double base_nll = 0;        // cross-entropy of the text's next token, in nats
  double nll = 0;
};

struct TextFidelity {
  std::string text;     // its name
  std::string variant;  // the model's name; the caller's to set
  Fidelity all;
  std::vector<Fidelity> by_position;  // windows' positions 0-127, 128-255, 256-511, ... doubling
};

struct FidelityOptions {
  Mode mode = Mode::kStudent;                // the model that is compared with base
  std::optional<DType> kv_cache_dtype = {};  // its K/V cache; base's is always in the type of base's weights
  int64_t window_tokens = 2048;              // each window is a prompt of its own
  int64_t max_tokens = 0;                    // of a text, from its beginning; 0: all
  std::function<bool()> cancelled = nullptr;
  std::function<void(const std::string& text, int64_t done, int64_t total)> on_progress = nullptr;  // tokens
};

// `base` holds the teacher, `weights` hold `options.mode`: the same object, or the same model in another precision.
// Errors: kInvalidInput (fewer than two tokens), kResourceExhausted, kCancelled.
Result<TextFidelity> MeasureFidelity(const Weights& base, const Weights& weights, const Tokenizer& tokenizer,
                                     const NamedText& text, const FidelityOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_FIDELITY_H_
