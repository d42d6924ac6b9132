#include "engine/model_runner.h"

#include "engine/model_costs.h"

namespace swiftkv {
namespace {

class ForwardRunner final : public ModelRunner {
 public:
  ForwardRunner(const Weights& weights, Mode mode, std::optional<DType> cache_dtype)
      : forward_(weights, mode, cache_dtype) {
    const ModelConfig& config = weights.config;
    const ModelCosts costs = ComputeModelCosts(config);
    traits_.vocab_size = config.vocab_size;
    traits_.max_position_embeddings = config.max_position_embeddings;
    traits_.eos_token_ids = config.eos_token_id;
    traits_.logit_rows_at_once = weights.backend->logit_rows();
    traits_.draws_tokens = weights.backend->draws_tokens();
    traits_.cache_layout = forward_.cache_layout();
    traits_.skips_layers = mode == Mode::kStudent && config.is_swiftkv();
    traits_.token_flops = 2.0 * static_cast<double>(costs.base_prefill_macs);
    traits_.skipping_token_flops =
        traits_.skips_layers ? 2.0 * static_cast<double>(costs.swiftkv_prefill_macs) : traits_.token_flops;
  }

  const ModelTraits& traits() const override { return traits_; }
  Status Reserve(int64_t rows, int64_t logit_rows) override { return forward_.Reserve(rows, logit_rows); }
  Status Run(const Step& step, KvCache* cache) override { return forward_.Run(step, cache); }
  Status ReadLogits(int64_t begin, int64_t count, const LogitReads& reads) override {
    return forward_.ReadLogits(begin, count, reads);
  }

 private:
  Forward forward_;
  ModelTraits traits_;
};

}  // namespace

std::unique_ptr<ModelRunner> MakeModelRunner(const Weights& weights, Mode mode, std::optional<DType> cache_dtype) {
  return std::make_unique<ForwardRunner>(weights, mode, cache_dtype);
}

}  // namespace swiftkv
