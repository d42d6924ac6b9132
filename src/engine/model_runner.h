// What the engine needs of a model: a real one behind it in production, a stub under simulation.
#ifndef SWIFTKV_ENGINE_MODEL_RUNNER_H_
#define SWIFTKV_ENGINE_MODEL_RUNNER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/status.h"
#include "cache/kv_cache.h"
#include "kernels/ops.h"
#include "model/forward.h"

namespace swiftkv {

// What the engine must know about the model in numbers.
struct ModelTraits {
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  std::vector<int32_t> eos_token_ids = {};
  KvLayout cache_layout = {};
  // Floating-point operations of the projections and MLPs for a token through all layers, and for one whose logits
  // nobody wants.
  double token_flops = 1;
  double skipping_token_flops = 1;
  bool skips_layers = false;        // SwiftKV
  int64_t logit_rows_at_once = 64;  // whose logits are best made together
  bool draws_tokens = false;        // LogitReads::draws
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual const ModelTraits& traits() const = 0;
  // Forward's, with the same promises.
  virtual Status Reserve(int64_t /*rows*/, int64_t /*logit_rows*/) { return Ok(); }
  virtual Status Run(const Step& step, KvCache* cache) = 0;
  virtual Status ReadLogits(int64_t begin, int64_t count, const LogitReads& reads) = 0;
};

// `weights` must outlive it.
std::unique_ptr<ModelRunner> MakeModelRunner(const Weights& weights, Mode mode, std::optional<DType> cache_dtype = {});

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_MODEL_RUNNER_H_
