// The tiny models of tests/golden/model (made by tools/make_model_goldens.py), and a way to run any model.
#ifndef SWIFTKV_TESTS_PARITY_MODEL_CASES_H_
#define SWIFTKV_TESTS_PARITY_MODEL_CASES_H_

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/tensor_source.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/forward.h"
#include "model/weights.h"

namespace swiftkv {

struct ModelCase {
  std::string name;
  ModelConfig config;
  std::shared_ptr<TensorSource> base;
  std::shared_ptr<TensorSource> adapter;  // null for a plain model
};

// All cases, or those that are SwiftKV models.
const std::vector<ModelCase>& ModelCases();
std::vector<ModelCase> SwiftKvCases();

// A float32 or int32 tensor of logits.safetensors.
std::vector<float> GoldenLogits(const std::string& name);
std::vector<int32_t> GoldenTokens();

// All that can run here, a GPU's among them.
std::vector<const kernels::Backend*> AllBackends();

// Weights of every mode that the case has.
Weights LoadCase(const ModelCase& model, DType dtype, const kernels::Backend* backend);

// A model and a cache for one mode, fed step by step. Fails the test on any error.
class Runner {
 public:
  Runner(const Weights& weights, Mode mode, int64_t cache_tokens, std::optional<DType> cache_dtype = {});

  // One sequence of a step: the tokens that come next, and which of them want logits.
  struct Feed {
    int64_t sequence;
    std::vector<int32_t> tokens;
    std::vector<int32_t> logit_rows;  // counted from the first of `tokens`
  };
  // Logits of all logit rows in order, [rows, vocab_size].
  std::vector<float> Step(const std::vector<Feed>& feeds, ForwardObserver* observer = nullptr);

  Forward& forward() { return forward_; }

 private:
  const Weights& weights_;
  Forward forward_;
  KvCache cache_;
  std::vector<std::vector<int32_t>> tables_;  // of each sequence
  std::vector<int32_t> lengths_;              // of each sequence
};

// All tokens as one sequence in chunks of `chunk` (0: one chunk), logits of every row.
std::vector<float> RunAllRows(const Weights& weights, Mode mode, const std::vector<int32_t>& tokens, int64_t chunk = 0,
                              std::optional<DType> cache_dtype = {});

// The larger of two errors; NaN, which no bound lets pass, if one of them is.
inline double Worse(double a, double b) { return std::isnan(a) || a > b ? a : b; }

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab_size, uint64_t seed);

}  // namespace swiftkv

#endif  // SWIFTKV_TESTS_PARITY_MODEL_CASES_H_
