#include "eval/fidelity.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "base/parallel.h"
#include "eval/statistics.h"
#include "model/sequence_batch.h"

namespace swiftkv {
namespace {

constexpr int64_t kTileRows = 64;
constexpr size_t kTop = 5;
constexpr int64_t kFirstBucket = 128;

// One position of a window.
struct Position {
  double kl = 0;
  double top1 = 0;
  double top5 = 0;
  bool has_next = false;  // a token of the window follows
  double base_nll = 0;    // of it
  double nll = 0;
};

struct Distribution {
  double log_sum = 0;                 // log of the sum of exp(logit)
  std::array<size_t, kTop> top = {};  // most likely first; of equal logits the lower token id
};

Distribution Describe(std::span<const float> logits) {
  Distribution distribution;
  const auto above = [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  size_t count = 0;
  for (size_t token = 0; token < logits.size(); ++token) {
    if (count == kTop && !above(token, distribution.top[kTop - 1])) continue;
    size_t place = count < kTop ? count++ : kTop - 1;
    for (; place > 0 && above(token, distribution.top[place - 1]); --place) {
      distribution.top[place] = distribution.top[place - 1];
    }
    distribution.top[place] = token;
  }
  const double greatest = logits[distribution.top[0]];
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - greatest);
  distribution.log_sum = greatest + std::log(sum);
  return distribution;
}

// `next`: the token that follows, or nullptr.
Position Compare(std::span<const float> base, std::span<const float> model, const int32_t* next) {
  const Distribution p = Describe(base);
  const Distribution q = Describe(model);
  Position position;
  for (size_t token = 0; token < base.size(); ++token) {
    const double log_p = base[token] - p.log_sum;
    position.kl += std::exp(log_p) * (log_p - (model[token] - q.log_sum));
  }
  position.kl = std::max(position.kl, 0.0);  // rounding
  position.top1 = p.top[0] == q.top[0] ? 1 : 0;
  for (const size_t token : p.top) {
    position.top5 += std::find(q.top.begin(), q.top.end(), token) != q.top.end() ? 1.0 / kTop : 0;
  }
  if (next == nullptr) return position;
  position.has_next = true;
  position.base_nll = p.log_sum - base[static_cast<size_t>(*next)];
  position.nll = q.log_sum - model[static_cast<size_t>(*next)];
  return position;
}

// Base and the model over windows of one text.
class Comparison {
 public:
  Comparison(const Weights& base, const Weights& weights, const FidelityOptions& options)
      : vocab_(static_cast<size_t>(base.config.vocab_size)),
        base_(base, Mode::kTeacher),
        model_(weights, options.mode, options.kv_cache_dtype),
        base_logits_(kTileRows * vocab_),
        model_logits_(kTileRows * vocab_) {}

  Result<std::vector<Position>> Run(const TokenSequence& window) {
    const std::span<const TokenSequence> sequences(&window, 1);
    SWIFTKV_RETURN_IF_ERROR(base_.Run(sequences));
    SWIFTKV_RETURN_IF_ERROR(model_.Run(sequences));
    std::vector<Position> positions(window.size());
    const auto rows = static_cast<int64_t>(positions.size());
    for (int64_t begin = 0; begin < rows; begin += kTileRows) {
      const int64_t count = std::min(kTileRows, rows - begin);
      SWIFTKV_RETURN_IF_ERROR(base_.Logits(begin, count, base_logits_.data()));
      SWIFTKV_RETURN_IF_ERROR(model_.Logits(begin, count, model_logits_.data()));
      ParallelFor(count, [&](int64_t row) {
        const size_t offset = static_cast<size_t>(row) * vocab_;
        const auto position = static_cast<size_t>(begin + row);
        positions[position] = Compare({base_logits_.data() + offset, vocab_}, {model_logits_.data() + offset, vocab_},
                                      position + 1 < window.size() ? &window[position + 1] : nullptr);
      });
    }
    return positions;
  }

 private:
  size_t vocab_;
  SequenceRunner base_;
  SequenceRunner model_;
  std::vector<float> base_logits_;   // [kTileRows, vocab]
  std::vector<float> model_logits_;  // [kTileRows, vocab]
};

Fidelity Summarize(int64_t begin, int64_t end, std::span<const Position> positions) {
  Fidelity fidelity{.begin = begin, .end = end, .tokens = static_cast<int64_t>(positions.size())};
  std::vector<double> kl;
  const auto count = static_cast<double>(positions.size());
  double scored = 0;
  for (const Position& position : positions) {
    kl.push_back(position.kl);
    fidelity.top1_agreement += position.top1 / count;
    fidelity.top5_agreement += position.top5 / count;
    if (!position.has_next) continue;
    ++scored;
    fidelity.base_nll += position.base_nll;
    fidelity.nll += position.nll;
  }
  fidelity.base_nll /= std::max(scored, 1.0);
  fidelity.nll /= std::max(scored, 1.0);
  const Estimate mean = MeanOf(kl);
  fidelity.mean_kl = mean.mean;
  fidelity.kl_standard_error = mean.standard_error;
  fidelity.p99_kl = Quantile(0.99, kl);
  return fidelity;
}

int64_t BucketOf(int64_t position) {
  int64_t bucket = 0;
  for (int64_t end = kFirstBucket; position >= end; end *= 2) ++bucket;
  return bucket;
}

}  // namespace

Result<TextFidelity> MeasureFidelity(const Weights& base, const Weights& weights, const Tokenizer& tokenizer,
                                     const NamedText& text, const FidelityOptions& options) {
  std::vector<int32_t> ids = tokenizer.Encode(text.text, {.add_special_tokens = false});
  if (options.max_tokens > 0 && static_cast<int64_t>(ids.size()) > options.max_tokens) {
    ids.resize(static_cast<size_t>(options.max_tokens));
  }
  const auto total = static_cast<int64_t>(ids.size());
  if (total < 2) return InvalidInput("{}: fidelity needs two tokens of text or more", text.name);
  const int64_t length = std::clamp<int64_t>(options.window_tokens, 2, base.config.max_position_embeddings);

  Comparison comparison(base, weights, options);
  std::vector<Position> all;
  std::vector<std::vector<Position>> buckets;
  for (int64_t begin = 0; begin < total; begin += length) {
    if (options.cancelled && options.cancelled()) return MakeError(ErrorCode::kCancelled, "fidelity was cancelled");
    const TokenSequence window(ids.begin() + begin, ids.begin() + std::min(begin + length, total));
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Position> positions, comparison.Run(window));
    for (size_t i = 0; i < positions.size(); ++i) {
      const auto bucket = static_cast<size_t>(BucketOf(static_cast<int64_t>(i)));
      if (buckets.size() <= bucket) buckets.resize(bucket + 1);
      buckets[bucket].push_back(positions[i]);
    }
    all.insert(all.end(), positions.begin(), positions.end());
    if (options.on_progress) options.on_progress(text.name, std::min(begin + length, total), total);
  }

  TextFidelity result{
      .text = text.name, .variant = {}, .all = Summarize(0, std::min(length, total), all), .by_position = {}};
  int64_t begin = 0;
  int64_t end = kFirstBucket;
  for (const std::vector<Position>& bucket : buckets) {
    result.by_position.push_back(Summarize(begin, end, bucket));
    begin = std::exchange(end, 2 * end);
  }
  return result;
}

}  // namespace swiftkv
