// Whole sequences through the model in one step each batch, from position 0, all rows wanted: what calibration and the
// measurement of a student's quality do.
#ifndef SWIFTKV_MODEL_SEQUENCE_BATCH_H_
#define SWIFTKV_MODEL_SEQUENCE_BATCH_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/kv_cache.h"
#include "model/forward.h"

namespace swiftkv {

using TokenSequence = std::vector<int32_t>;

// Runs batches with a cache of its own, made for the largest batch so far.
class SequenceRunner {
 public:
  // `cache_dtype`: see Forward.
  SequenceRunner(const Weights& weights, Mode mode, std::optional<DType> cache_dtype = {})
      : forward_(weights, mode, cache_dtype) {}

  // Row r of the step is token r of the sequences put one after another. logit_rows: see Step; absent: all rows.
  Status Run(std::span<const TokenSequence> sequences, ForwardObserver* observer = nullptr,
             std::optional<std::vector<int32_t>> logit_rows = {});
  // As Forward's.
  Status Logits(int64_t begin, int64_t count, float* out) { return forward_.Logits(begin, count, out); }
  void LogitsInMemory(int64_t begin, int64_t count, float* out) { forward_.LogitsInMemory(begin, count, out); }

 private:
  Forward forward_;
  std::optional<KvCache> cache_;
};

// Cuts `sequences` into batches of at most `tokens` tokens (a longer sequence is a batch of its own).
std::vector<std::span<const TokenSequence>> Batches(std::span<const TokenSequence> sequences, int64_t tokens);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_SEQUENCE_BATCH_H_
