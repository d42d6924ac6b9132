#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/engine.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

int64_t CountWords(std::string_view text) {
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const bool space = PropertiesOf(NextCodePoint(text, at)).IsSpace();
    if (!space && !inside) ++words;
    inside = !space;
  }
  return words;
}

double PerUnit(double loglikelihood, int64_t units) { return -loglikelihood / static_cast<double>(units); }

}  // namespace

double TextPerplexity::token_perplexity() const { return std::exp(PerUnit(loglikelihood, tokens)); }
double TextPerplexity::word_perplexity() const { return std::exp(PerUnit(loglikelihood, words)); }
double TextPerplexity::byte_perplexity() const { return std::exp(PerUnit(loglikelihood, bytes)); }
double TextPerplexity::bits_per_byte() const { return PerUnit(loglikelihood, bytes) / std::log(2); }

std::vector<RollingWindow> RollingWindows(const std::vector<int32_t>& token_ids, int32_t first_condition,
                                          int64_t length) {
  std::vector<int32_t> all = {first_condition};
  all.insert(all.end(), token_ids.begin(), token_ids.end());
  const auto last = static_cast<int64_t>(token_ids.size());  // its place in `all`
  std::vector<RollingWindow> windows;
  for (int64_t scored = 0; scored < last;) {
    const int64_t end = std::min(scored + length, last);
    const int64_t begin = std::max<int64_t>(end - length, 0);
    windows.push_back({.token_ids = {all.begin() + begin, all.begin() + end + 1}, .scored_begin = scored + 1 - begin});
    scored = end;
  }
  return windows;
}

Result<TextPerplexity> MeasurePerplexity(const Variant& variant, const NamedText& text,
                                         const EvaluationOptions& options) {
  const Tokenizer& tokenizer = *variant.text->tokenizer;
  const std::vector<int32_t> ids = tokenizer.Encode(text.text, {.add_special_tokens = false});
  if (ids.empty()) return InvalidInput("{}: the text is empty", text.name);
  const int64_t length = std::min(options.max_model_len, variant.weights->config.max_position_embeddings - 1);
  if (length < 1) return InvalidInput("perplexity needs a model's context of at least 2 tokens");
  EvaluationOptions with_last = options;
  with_last.max_model_len = length + 1;
  SWIFTKV_ASSIGN_OR_RETURN(const auto engine, MakeEngine(variant, with_last));
  TextPerplexity result{.text = text.name,
                        .variant = variant.name,
                        .tokens = static_cast<int64_t>(ids.size()),
                        .words = CountWords(text.text),
                        .bytes = static_cast<int64_t>(text.text.size())};
  const int32_t condition = tokenizer.bos_token_id().value_or(tokenizer.eos_token_id().value_or(ids.front()));
  for (RollingWindow& window : RollingWindows(ids, condition, length)) {
    std::vector<Request> requests(1);
    requests[0] = {
        .prompt_token_ids = std::move(window.token_ids),
        .sampling = {
            .temperature = 0, .max_tokens = 0, .prompt_logprobs = 0, .prompt_logprobs_begin = window.scored_begin}};
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<GenerateResult> results,
                             engine->Generate(std::move(requests), options.cancelled));
    double& sum = result.window_loglikelihoods.emplace_back(0);
    for (const PositionLogprobs& position : results[0].prompt_logprobs) sum += position.token.logprob;
    result.loglikelihood += sum;
  }
  return result;
}

}  // namespace swiftkv
