// One step of the model: the tokens that a scheduler chose, through the layers, into the cache and out as logits.
// SwiftKV is a segment of this function, not a subclass (design section 4).
#ifndef SWIFTKV_MODEL_FORWARD_H_
#define SWIFTKV_MODEL_FORWARD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/kv_cache.h"
#include "model/weights.h"

namespace swiftkv {

// Adjacent tokens of one sequence in a step. The chunks of a step follow one another without gaps.
struct SequenceChunk {
  int64_t token_begin = 0;  // first row of the step
  int64_t tokens = 0;
  int32_t position = 0;  // absolute position of the first token = tokens of this sequence already in the cache
  std::span<const int32_t> block_table;  // at least (position + tokens) / 16 entries, rounded up
};

struct Step {
  std::vector<int32_t> token_ids;  // [tokens], each in [0, vocab_size)
  std::vector<SequenceChunk> chunks;
  std::vector<int32_t> logit_rows;  // ascending rows of the step whose logits are wanted; may be empty
};

// Sees what calibration and distillation need, while a step runs. Spans live during the call only.
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;
  // True: it takes LayerInput alone and copies it within the backend's memory, so that a device's steps can be
  // observed.
  virtual bool StaysInMemory() const { return false; }
  // The residual stream before layer j, float32 [rows, hidden] in the backend's memory; j = num_hidden_layers: before
  // the final norm.
  // Rows: all tokens of the step up to the layer at which only the logit rows go on (n in the student; the last one in
  // the teacher), that layer included; the logit rows above it.
  virtual void LayerInput(int64_t /*layer*/, std::span<const float> /*hidden*/) {}
  // False: Projections is never called, and nothing is gathered for it.
  virtual bool WantsProjections() const { return true; }
  // Projections of layer j before q/k norms and RoPE, float32: q [rows, q_size], k and v [rows, kv_size]. Where the K/V
  // of all tokens and the queries of the logit rows are computed apart (the student's layers >= n, the teacher's last),
  // two calls come, k and v first; what a call does not bring is empty.
  virtual void Projections(int64_t /*layer*/, std::span<const float> /*q*/, std::span<const float> /*k*/,
                           std::span<const float> /*v*/) {}
  // The inputs of a product, in the activation type: x [rows, matrix.k], without gaps.
  virtual void GemmInput(const kernels::PackedMatrix& /*matrix*/, const void* /*x*/, int64_t /*rows*/) {}
};

// What is read of the logits of some rows, all on the host.
struct LogitReads {
  float* logits = nullptr;          // [rows, vocab_size]
  std::span<const uint8_t> wanted;  // [rows] 0: that row of `logits` may stay as it is; a device sends the others alone
  kernels::LogitStats* stats = nullptr;            // [rows] or null
  std::span<const kernels::TokenDraw> draws = {};  // [rows] or empty, with `stats`; where Backend::draws_tokens
  int32_t* tokens = nullptr;                       // [rows], drawn
};

// The layout that a cache for `mode` must have; without `cache_dtype` in the type of the weights.
KvLayout CacheLayout(const Weights& weights, Mode mode, std::optional<DType> cache_dtype = {});

// Runs steps with one set of weights. Holds the work buffers; not thread-safe, one owner at a time.
class Forward {
 public:
  // `mode`: the teacher runs every layer with the original q/k/v; the student is SwiftKV (a plain model's student is
  // the plain model). `weights` must hold that mode and outlive this. `cache_dtype`: the weights' own, or kI8, or on a
  // GPU kF8E4M3.
  Forward(const Weights& weights, Mode mode, std::optional<DType> cache_dtype = {});
  ~Forward();
  Forward(Forward&&) noexcept;
  Forward& operator=(Forward&&) noexcept;

  KvLayout cache_layout() const;

  // On a device: takes the work memory of the largest step to come, so that what is left can be given to the cache. On
  // CPUs nothing is taken: what isn't touched costs nothing there. Error kResourceExhausted.
  Status Reserve(int64_t rows, int64_t logit_rows);

  // Runs the step: writes K/V of every token of every KV group, and keeps the final hidden states (after the last
  // norm) of the logit rows for Logits(). Without logit rows it stops after the last cache write.
  // Errors: kInvalidInput (token id, position, block or logit row out of range, a cache type that this backend can't
  // read), kResourceExhausted (work buffers); the cache is then untouched. What a device says, it may say later.
  Status Run(const Step& step, KvCache* cache, ForwardObserver* observer = nullptr);

  // Logits of logit rows [begin, begin + count) of the last step, float32 [count, vocab_size] on the host.
  // Errors of both: what a device said (Backend::TakeError), kResourceExhausted; none on CPUs.
  Status Logits(int64_t begin, int64_t count, float* out);
  // As Logits, with what else `reads` asks for.
  Status ReadLogits(int64_t begin, int64_t count, const LogitReads& reads);
  // As Logits, into the backend's memory.
  void LogitsInMemory(int64_t begin, int64_t count, float* out);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_FORWARD_H_
