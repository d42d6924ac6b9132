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

std::vector<std::vector<int32_t>> RollingWindows(const std::vector<int32_t>& token_ids, int32_t first_condition,
                                                 int64_t length) {
  std::vector<std::vector<int32_t>> windows;
  const auto step = static_cast<size_t>(std::max<int64_t>(length - 1, 1));
  for (size_t begin = 0; begin < token_ids.size(); begin += step) {
    const size_t end = std::min(begin + step, token_ids.size());
    std::vector<int32_t>& window = windows.emplace_back();
    window.push_back(begin == 0 ? first_condition : token_ids[begin - 1]);
    window.insert(window.end(), token_ids.begin() + static_cast<ptrdiff_t>(begin),
                  token_ids.begin() + static_cast<ptrdiff_t>(end));
  }
  return windows;
}

Result<TextPerplexity> MeasurePerplexity(const Variant& variant, const NamedText& text,
                                         const EvaluationOptions& options) {
  const Tokenizer& tokenizer = *variant.text->tokenizer;
  const std::vector<int32_t> ids = tokenizer.Encode(text.text, {.add_special_tokens = false});
  if (ids.empty()) return InvalidInput("{}: the text is empty", text.name);
  const int64_t length = MaxModelLen(variant, options);
  if (length < 2) return InvalidInput("perplexity needs a context of at least 2 tokens, not {}", length);
  SWIFTKV_ASSIGN_OR_RETURN(const auto engine, MakeEngine(variant, options));
  TextPerplexity result{.text = text.name,
                        .variant = variant.name,
                        .tokens = static_cast<int64_t>(ids.size()),
                        .words = CountWords(text.text),
                        .bytes = static_cast<int64_t>(text.text.size())};
  const int32_t condition = tokenizer.bos_token_id().value_or(tokenizer.eos_token_id().value_or(ids.front()));
  for (std::vector<int32_t>& window : RollingWindows(ids, condition, length)) {
    std::vector<Request> requests(1);
    requests[0] = {.prompt_token_ids = std::move(window),
                   .sampling = {.temperature = 0, .max_tokens = 0, .prompt_logprobs = 0}};
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<GenerateResult> results,
                             engine->Generate(std::move(requests), options.cancelled));
    double& sum = result.window_loglikelihoods.emplace_back(0);
    for (const PositionLogprobs& position : results[0].prompt_logprobs) sum += position.token.logprob;
    result.loglikelihood += sum;
  }
  return result;
}

}  // namespace swiftkv
