#include "distill/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "distill/batch_rows.h"
#include "distill/hidden_loss.h"
#include "distill/logits_loss.h"
#include "distill/student_pass.h"
#include "model/sequence_batch.h"

namespace swiftkv {
namespace {

// Keeps what the student and the loss need of the teacher's run.
class TeacherRecord : public ForwardObserver {
 public:
  // hidden_layer: the layer whose input the hidden loss compares, or -1.
  TeacherRecord(int64_t n, int64_t hidden_layer) : n_(n), hidden_layer_(hidden_layer) {}
  bool WantsProjections() const override { return false; }
  void LayerInput(int64_t layer, std::span<const float> hidden) override {
    if (layer == n_) lower_.assign(hidden.begin(), hidden.end());
    if (layer == hidden_layer_) hidden_.assign(hidden.begin(), hidden.end());
  }
  std::span<const float> lower() const { return lower_; }    // [rows, hidden] after layer n - 1
  std::span<const float> hidden() const { return hidden_; }  // [rows, hidden]

 private:
  int64_t n_;
  int64_t hidden_layer_;
  std::vector<float> lower_;
  std::vector<float> hidden_;
};

Status CheckMicroBatch(std::span<const PackedSequence> batch, int64_t vocab, int64_t max_positions) {
  for (const PackedSequence& sequence : batch) {
    if (sequence.in_loss.size() != sequence.token_ids.size() || sequence.document_begins.empty()) {
      return MakeError(ErrorCode::kInternal, "distill: a packed row of inconsistent sizes");
    }
    for (const int32_t id : sequence.token_ids) {
      if (id < 0 || id >= vocab) return InvalidInput("token id {}: the model's vocabulary has {}", id, vocab);
    }
    if (sequence.tokens() > max_positions) {
      return InvalidInput("a row of {} tokens: the model has {} positions", sequence.tokens(), max_positions);
    }
  }
  return Ok();
}

}  // namespace

class Trainer::Impl {
 public:
  Impl(Weights weights, Student student, TransposedWeights transposed, const TrainerOptions& options,
       int64_t hidden_layer)
      : options_(options),
        weights_(std::move(weights)),
        student_(std::move(student)),
        transposed_(std::move(transposed)),
        hidden_layer_(hidden_layer),
        teacher_(weights_, Mode::kTeacher),
        pass_(weights_, transposed_, student_, options.activation_checkpointing),
        logits_loss_(weights_, transposed_.lm_head, options.logits_loss_temp) {
    student_.Repack(&weights_);
    for (const Parameter& parameter : student_.parameters()) gradients_.emplace_back(parameter.value.size());
  }

  Result<StepReport> ComputeGradients(std::span<const std::vector<PackedSequence>> micro_batches);
  Result<StepReport> Step(std::span<const std::vector<PackedSequence>> micro_batches, double learning_rate);
  Status Restore(std::vector<Parameter> parameters, int64_t updates);

  Result<Quality> Measure(std::span<const TokenSequence> sequences) const {
    return MeasureQuality(weights_, sequences);
  }
  const Gradients& gradients() const { return gradients_; }
  const Student& student() const { return student_; }
  const ModelConfig& config() const { return weights_.config; }
  int64_t updates() const { return updates_; }

 private:
  Status AddMicroBatch(std::span<const PackedSequence> packed, int64_t positions, int64_t tokens, StepReport* report);
  Status LogitsLossAndGradient(const BatchRows& batch, int64_t positions, StepReport* report);

  const TrainerOptions options_;
  Weights weights_;
  Student student_;
  const TransposedWeights transposed_;
  const int64_t hidden_layer_;  // -1: no hidden loss
  SequenceRunner teacher_;
  StudentPass pass_;
  LogitsLoss logits_loss_;
  Gradients gradients_;
  int64_t updates_ = 0;

  // Of one micro-batch:
  std::vector<float> dhidden_;    // [rows, hidden]
  std::vector<float> kept_;       // [loss rows, hidden] before the final norm
  std::vector<float> dkept_;      // [loss rows, hidden]
  std::vector<std::byte> final_;  // act [loss rows, hidden] after the final norm
};

Result<StepReport> Trainer::Impl::ComputeGradients(std::span<const std::vector<PackedSequence>> micro_batches) {
  StepReport report;
  for (const std::vector<PackedSequence>& batch : micro_batches) {
    SWIFTKV_RETURN_IF_ERROR(
        CheckMicroBatch(batch, weights_.config.vocab_size, weights_.config.max_position_embeddings));
    for (const PackedSequence& sequence : batch) {
      report.tokens += sequence.tokens();
      report.loss_positions +=
          std::count_if(sequence.in_loss.begin(), sequence.in_loss.end(), [](uint8_t v) { return v != 0; });
    }
  }
  if (report.loss_positions == 0) return InvalidInput("no token of the batch counts in the loss");
  for (std::vector<float>& gradient : gradients_) std::fill(gradient.begin(), gradient.end(), 0.0f);
  for (const std::vector<PackedSequence>& batch : micro_batches) {
    SWIFTKV_RETURN_IF_ERROR(AddMicroBatch(batch, report.loss_positions, report.tokens, &report));
  }
  const auto positions = static_cast<double>(report.loss_positions);
  report.kl_loss /= positions;
  report.agreement /= positions;
  report.loss = report.kl_loss + options_.hidden_loss_mult * report.hidden_loss;
  report.gradient_norm = GradientNorm(gradients_);
  return report;
}

Status Trainer::Impl::AddMicroBatch(std::span<const PackedSequence> packed, int64_t positions, int64_t tokens,
                                    StepReport* report) {
  const BatchRows batch = MakeBatchRows(packed);
  if (batch.rows() == 0) return Ok();
  TeacherRecord record(weights_.config.num_key_value_layers, hidden_layer_);
  SWIFTKV_RETURN_IF_ERROR(teacher_.Run(batch.sequences, &record, batch.loss_rows));
  SWIFTKV_RETURN_IF_ERROR(pass_.Forward(batch, record.lower()));
  dhidden_.assign(static_cast<size_t>(batch.rows() * weights_.config.hidden_size), 0.0f);
  if (!batch.loss_rows.empty()) SWIFTKV_RETURN_IF_ERROR(LogitsLossAndGradient(batch, positions, report));
  const auto at_layer = [&](int64_t layer, float* dhidden) {
    if (layer != hidden_layer_) return;
    report->hidden_loss += HiddenLoss(options_.hidden_loss_kind, pass_.LayerInput(layer), record.hidden(),
                                      weights_.config.hidden_size, tokens, options_.hidden_loss_mult, dhidden);
  };
  return pass_.Backward(batch, dhidden_.data(), at_layer, &gradients_);
}

// The loss on the rows that count in it; its gradient goes to their rows of dhidden_.
Status Trainer::Impl::LogitsLossAndGradient(const BatchRows& batch, int64_t positions, StepReport* report) {
  const ModelConfig& c = weights_.config;
  const auto rows = static_cast<int64_t>(batch.loss_rows.size());
  const auto row_bytes = static_cast<size_t>(c.hidden_size) * sizeof(float);
  const std::span<const float> output = pass_.LayerInput(c.num_hidden_layers);
  kept_.resize(static_cast<size_t>(rows * c.hidden_size));
  dkept_.resize(kept_.size());
  final_.resize(kept_.size() * (weights_.dtype == DType::kBF16 ? 2 : 4));
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(kept_.data() + r * c.hidden_size,
                output.data() + batch.loss_rows[static_cast<size_t>(r)] * c.hidden_size, row_bytes);
  }
  const kernels::Backend& ops = *weights_.backend;
  const auto eps = static_cast<float>(c.rms_norm_eps);
  ops.RmsNorm({.x = kept_.data(),
               .x_stride = c.hidden_size,
               .weight = weights_.norm.data(),
               .eps = eps,
               .rows = rows,
               .size = c.hidden_size,
               .out = final_.data(),
               .out_stride = c.hidden_size,
               .out_dtype = weights_.dtype});
  SWIFTKV_ASSIGN_OR_RETURN(
      const LogitsLossSums sums,
      logits_loss_.Run([&](int64_t begin, int64_t count, float* out) { teacher_.Logits(begin, count, out); },
                       final_.data(), rows, 1 / static_cast<double>(positions), dkept_.data()));
  report->kl_loss += sums.loss;
  report->agreement += static_cast<double>(sums.agree);
  ops.backward().RmsNorm({.x = kept_.data(),
                          .x_stride = c.hidden_size,
                          .weight = weights_.norm.data(),
                          .eps = eps,
                          .rows = rows,
                          .size = c.hidden_size,
                          .dy = dkept_.data(),
                          .dy_stride = c.hidden_size,
                          .dx = dkept_.data(),
                          .dx_stride = c.hidden_size});
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(dhidden_.data() + batch.loss_rows[static_cast<size_t>(r)] * c.hidden_size,
                dkept_.data() + r * c.hidden_size, row_bytes);
  }
  return Ok();
}

Result<StepReport> Trainer::Impl::Step(std::span<const std::vector<PackedSequence>> micro_batches,
                                       double learning_rate) {
  SWIFTKV_ASSIGN_OR_RETURN(StepReport report, ComputeGradients(micro_batches));
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) {
    return MakeError(ErrorCode::kInternal,
                     "the loss is {} and its gradient's norm {} at update {}: a lower learning rate may help",
                     report.loss, report.gradient_norm, updates_ + 1);
  }
  double scale = 1;
  if (options_.max_grad_norm > 0) scale = std::min(1.0, options_.max_grad_norm / (report.gradient_norm + 1e-6));
  ++updates_;
  AdamWStep(options_.adamw, learning_rate, updates_, scale, gradients_, &student_.parameters());
  student_.Repack(&weights_);
  return report;
}

Status Trainer::Impl::Restore(std::vector<Parameter> parameters, int64_t updates) {
  const std::vector<Parameter>& own = student_.parameters();
  if (parameters.size() != own.size()) {
    return InvalidInput("the saved state has {} tensors, the student has {}", parameters.size(), own.size());
  }
  for (size_t i = 0; i < own.size(); ++i) {
    const Parameter& saved = parameters[i];
    const size_t size = own[i].value.size();
    if (saved.name != own[i].name || saved.value.size() != size || saved.first_moment.size() != size ||
        saved.second_moment.size() != size) {
      return InvalidInput("the saved state's tensor {} ({}) is not the student's {} ({} values)", i, saved.name,
                          own[i].name, size);
    }
  }
  student_.parameters() = std::move(parameters);
  updates_ = updates;
  student_.Repack(&weights_);
  return Ok();
}

Result<std::unique_ptr<Trainer>> Trainer::Create(const ModelConfig& student, const TensorSource& base,
                                                 const TensorSource& start, const TrainerOptions& options) {
  if (!student.is_swiftkv()) return InvalidInput("a model with n = L has nothing to distill");
  int64_t hidden_layer = -1;
  if (options.hidden_loss_mult != 0) {
    const int64_t layers = student.num_hidden_layers;
    hidden_layer = options.hidden_loss_layer < 0 ? layers + 1 + options.hidden_loss_layer : options.hidden_loss_layer;
    if (hidden_layer <= student.num_key_value_layers || hidden_layer >= layers) {
      return InvalidInput("hidden_loss_layer {}: must be the input of a layer between {} and {}",
                          options.hidden_loss_layer, student.num_key_value_layers + 1, layers - 1);
    }
  }
  const LoadOptions load{.dtype = options.dtype, .teacher = true, .student = true, .backend = options.backend};
  SWIFTKV_ASSIGN_OR_RETURN(Weights weights, LoadWeights(student, base, &start, load));
  SWIFTKV_ASSIGN_OR_RETURN(Student trained, Student::Create(student, start, *weights.backend, options.dtype));
  SWIFTKV_ASSIGN_OR_RETURN(TransposedWeights transposed, TransposedWeights::Create(weights));
  return std::unique_ptr<Trainer>(new Trainer(
      std::make_unique<Impl>(std::move(weights), std::move(trained), std::move(transposed), options, hidden_layer)));
}

Trainer::Trainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Trainer::~Trainer() = default;
Result<StepReport> Trainer::ComputeGradients(std::span<const std::vector<PackedSequence>> micro_batches) {
  return impl_->ComputeGradients(micro_batches);
}
Result<StepReport> Trainer::Step(std::span<const std::vector<PackedSequence>> micro_batches, double learning_rate) {
  return impl_->Step(micro_batches, learning_rate);
}
Result<Quality> Trainer::Measure(std::span<const TokenSequence> sequences) const { return impl_->Measure(sequences); }
const Gradients& Trainer::gradients() const { return impl_->gradients(); }
const Student& Trainer::student() const { return impl_->student(); }
const ModelConfig& Trainer::config() const { return impl_->config(); }
int64_t Trainer::updates() const { return impl_->updates(); }
Status Trainer::Restore(std::vector<Parameter> parameters, int64_t updates) {
  return impl_->Restore(std::move(parameters), updates);
}

}  // namespace swiftkv
