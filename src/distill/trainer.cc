#include "distill/trainer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "distill/batch_rows.h"
#include "distill/logits_loss.h"
#include "distill/student_pass.h"
#include "model/sequence_batch.h"

namespace swiftkv {
namespace {

// Keeps what the student and the loss need of the teacher's run, in the backend's memory.
class TeacherRecord : public ForwardObserver {
 public:
  // hidden_layer: the layer whose input the hidden loss compares, or -1.
  TeacherRecord(int64_t n, int64_t hidden_layer, MemorySpace& memory)
      : n_(n), hidden_layer_(hidden_layer), memory_(memory) {}

  // Room for runs of rows of so many bytes together.
  Status Reserve(int64_t bytes) {
    SWIFTKV_RETURN_IF_ERROR(lower_.Grow(bytes, "teacher's residual stream", memory_));
    return hidden_layer_ < 0 ? Ok() : hidden_.Grow(bytes, "teacher's hidden states", memory_);
  }
  bool StaysInMemory() const override { return true; }
  void LayerInput(int64_t layer, std::span<const float> hidden) override {
    if (layer == n_) Keep(hidden, &lower_);
    if (layer == hidden_layer_) Keep(hidden, &hidden_);
  }
  const float* lower() const { return lower_.as<float>(); }    // [rows, hidden] after layer n - 1
  const float* hidden() const { return hidden_.as<float>(); }  // [rows, hidden]

 private:
  // A device may add rows to a step of single tokens, which nobody asked for.
  void Keep(std::span<const float> hidden, AlignedBuffer* kept) {
    const int64_t bytes = std::min(static_cast<int64_t>(hidden.size_bytes()), kept->bytes());
    memory_.Copy(kept->data(), reinterpret_cast<const std::byte*>(hidden.data()), bytes);
  }

  int64_t n_;
  int64_t hidden_layer_;
  MemorySpace& memory_;
  AlignedBuffer lower_;
  AlignedBuffer hidden_;
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

// The layer whose input the hidden loss compares, or -1.
Result<int64_t> HiddenLossLayer(const ModelConfig& student, const TrainerOptions& options) {
  if (!student.is_swiftkv()) return InvalidInput("a model with n = L has nothing to distill");
  if (options.hidden_loss_mult == 0) return -1;
  const int64_t layers = student.num_hidden_layers;
  if (student.num_key_value_layers == layers - 1) {
    return InvalidInput(
        "hidden_loss_mult {}: with num_key_value_layers {} of {} layers there is no layer above whose "
        "input differs from the base model's; hidden_loss_mult must be 0",
        options.hidden_loss_mult, student.num_key_value_layers, layers);
  }
  const int64_t layer =
      options.hidden_loss_layer < 0 ? layers + 1 + options.hidden_loss_layer : options.hidden_loss_layer;
  if (layer <= student.num_key_value_layers || layer >= layers) {
    return InvalidInput("hidden_loss_layer {}: must be the input of a layer between {} and {}",
                        options.hidden_loss_layer, student.num_key_value_layers + 1, layers - 1);
  }
  return layer;
}

LoadOptions WeightsOf(const TrainerOptions& options) {
  return {.dtype = options.dtype, .teacher = true, .student = true, .backend = options.backend};
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
        ops_(*weights_.backend),
        teacher_(weights_, Mode::kTeacher),
        record_(weights_.config.num_key_value_layers, hidden_layer, ops_.memory()),
        batch_(ops_.memory()),
        pass_(weights_, transposed_, student_, options.activation_checkpointing),
        logits_loss_(weights_, transposed_.lm_head, options.logits_loss_temp) {
    student_.Repack(&weights_);
  }

  Result<StepReport> ComputeGradients(std::span<const std::vector<PackedSequence>> micro_batches);
  Result<StepReport> Step(std::span<const std::vector<PackedSequence>> micro_batches, double learning_rate);
  Status Restore(std::span<const Parameter> parameters, int64_t updates);

  Result<Quality> Measure(std::span<const TokenSequence> sequences) const {
    return Told(MeasureQuality(weights_, sequences));
  }
  const Student& student() const { return student_; }
  const ModelConfig& config() const { return weights_.config; }
  const kernels::Backend& backend() const { return ops_; }
  int64_t updates() const { return updates_; }

 private:
  // What else the device had to say of a failure is dropped: whoever asks it next asks about something else.
  template <class T>
  Result<T> Told(Result<T> result) const {
    if (!result) static_cast<void>(ops_.TakeError());
    return result;
  }
  Status AddMicroBatch(std::span<const PackedSequence> packed, int64_t positions, int64_t tokens, StepReport* report);
  Status LogitsLossAndGradient(int64_t positions, StepReport* report);
  void HiddenLoss(int64_t layer, int64_t tokens, float* dhidden);

  const TrainerOptions options_;
  Weights weights_;
  Student student_;
  const TransposedWeights transposed_;
  const int64_t hidden_layer_;  // -1: no hidden loss
  const kernels::Backend& ops_;
  SequenceRunner teacher_;
  TeacherRecord record_;
  BatchRows batch_;
  StudentPass pass_;
  LogitsLoss logits_loss_;
  int64_t updates_ = 0;

  // In the backend's memory:
  AlignedBuffer final_norm_;   // float32 [hidden]
  AlignedBuffer hidden_loss_;  // double [1], of one step
  // Of one micro-batch:
  AlignedBuffer dhidden_;  // float32 [rows, hidden]
  AlignedBuffer kept_;     // float32 [loss rows, hidden] before the final norm
  AlignedBuffer dkept_;    // float32 [loss rows, hidden]
  AlignedBuffer final_;    // act [loss rows, hidden] after the final norm
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
  SWIFTKV_RETURN_IF_ERROR(hidden_loss_.Grow(sizeof(double), "hidden loss", ops_.memory()));
  ops_.memory().Zero(hidden_loss_.data(), sizeof(double));
  student_.ZeroGradients();
  for (const std::vector<PackedSequence>& batch : micro_batches) {
    SWIFTKV_RETURN_IF_ERROR(AddMicroBatch(batch, report.loss_positions, report.tokens, &report));
  }
  ops_.memory().Read(&report.hidden_loss, hidden_loss_.data(), sizeof(double));
  const auto positions = static_cast<double>(report.loss_positions);
  report.kl_loss /= positions;
  report.agreement /= positions;
  report.loss = report.kl_loss + options_.hidden_loss_mult * report.hidden_loss;
  SWIFTKV_ASSIGN_OR_RETURN(report.gradient_norm, GradientNorm(ops_, student_.resident()));
  SWIFTKV_RETURN_IF_ERROR(ops_.TakeError());
  return report;
}

Status Trainer::Impl::AddMicroBatch(std::span<const PackedSequence> packed, int64_t positions, int64_t tokens,
                                    StepReport* report) {
  SWIFTKV_RETURN_IF_ERROR(batch_.Fill(packed));
  if (batch_.rows() == 0) return Ok();
  MemorySpace& memory = ops_.memory();
  const int64_t bytes = batch_.rows() * weights_.config.hidden_size * 4;
  SWIFTKV_RETURN_IF_ERROR(record_.Reserve(bytes));
  SWIFTKV_RETURN_IF_ERROR(teacher_.Run(batch_.sequences(), &record_, batch_.loss_rows()));
  SWIFTKV_RETURN_IF_ERROR(pass_.Forward(batch_, record_.lower()));
  SWIFTKV_RETURN_IF_ERROR(dhidden_.Grow(bytes, "gradient of hidden states", memory));
  memory.Zero(dhidden_.data(), bytes);
  if (!batch_.loss_rows().empty()) SWIFTKV_RETURN_IF_ERROR(LogitsLossAndGradient(positions, report));
  return pass_.Backward(batch_, dhidden_.as<float>(),
                        [&](int64_t layer, float* dhidden) { HiddenLoss(layer, tokens, dhidden); });
}

// The distance of the student's hidden states from the teacher's, beside the KL on logits (swiftkv.md section 4.2).
void Trainer::Impl::HiddenLoss(int64_t layer, int64_t tokens, float* dhidden) {
  if (layer != hidden_layer_) return;
  ops_.backward().HiddenLoss({.student = pass_.LayerInput(layer),
                              .teacher = record_.hidden(),
                              .rows = batch_.rows(),
                              .size = weights_.config.hidden_size,
                              .relative = options_.hidden_loss_kind == HiddenLossKind::kRelative,
                              .tokens = tokens,
                              .scale = options_.hidden_loss_mult,
                              .loss = hidden_loss_.as<double>(),
                              .dhidden = dhidden});
}

// The loss on the rows that count in it; its gradient goes to their rows of dhidden_.
Status Trainer::Impl::LogitsLossAndGradient(int64_t positions, StepReport* report) {
  const ModelConfig& c = weights_.config;
  MemorySpace& memory = ops_.memory();
  const auto rows = static_cast<int64_t>(batch_.loss_rows().size());
  const int64_t size = rows * c.hidden_size;
  SWIFTKV_RETURN_IF_ERROR(kept_.Grow(size * 4, "hidden states in the loss", memory));
  SWIFTKV_RETURN_IF_ERROR(dkept_.Grow(size * 4, "their gradient", memory));
  SWIFTKV_RETURN_IF_ERROR(final_.Grow(size * (weights_.dtype == DType::kBF16 ? 2 : 4), "final hidden states", memory));
  if (final_norm_.bytes() == 0) {
    SWIFTKV_RETURN_IF_ERROR(final_norm_.Grow(c.hidden_size * 4, "final norm", memory));
    memory.Write(final_norm_.data(), weights_.norm.data(), c.hidden_size * 4);
  }
  ops_.GatherRows(pass_.LayerInput(c.num_hidden_layers), c.hidden_size, batch_.resident_loss_rows(), rows,
                  kept_.as<float>());
  const auto eps = static_cast<float>(c.rms_norm_eps);
  ops_.RmsNorm({.x = kept_.as<float>(),
                .x_stride = c.hidden_size,
                .weight = final_norm_.as<float>(),
                .eps = eps,
                .rows = rows,
                .size = c.hidden_size,
                .out = final_.data(),
                .out_stride = c.hidden_size,
                .out_dtype = weights_.dtype});
  SWIFTKV_ASSIGN_OR_RETURN(
      const LogitsLossSums sums,
      logits_loss_.Run([&](int64_t begin, int64_t count, float* out) { teacher_.LogitsInMemory(begin, count, out); },
                       final_.data(), rows, 1 / static_cast<double>(positions), dkept_.as<float>()));
  report->kl_loss += sums.loss;
  report->agreement += static_cast<double>(sums.agree);
  ops_.backward().RmsNorm({.x = kept_.as<float>(),
                           .x_stride = c.hidden_size,
                           .weight = final_norm_.as<float>(),
                           .eps = eps,
                           .rows = rows,
                           .size = c.hidden_size,
                           .dy = dkept_.as<float>(),
                           .dy_stride = c.hidden_size,
                           .dx = dkept_.as<float>(),
                           .dx_stride = c.hidden_size});
  ops_.backward().ScatterRows({.x = dkept_.as<float>(),
                               .rows = batch_.resident_loss_rows(),
                               .count = rows,
                               .size = c.hidden_size,
                               .out = dhidden_.as<float>()});
  return Ok();
}

Result<StepReport> Trainer::Impl::Step(std::span<const std::vector<PackedSequence>> micro_batches,
                                       double learning_rate) {
  SWIFTKV_ASSIGN_OR_RETURN(StepReport report, Told(ComputeGradients(micro_batches)));
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) {
    return MakeError(ErrorCode::kInternal,
                     "the loss is {} and its gradient's norm {} at update {}: a lower learning rate may help",
                     report.loss, report.gradient_norm, updates_ + 1);
  }
  double scale = 1;
  if (options_.max_grad_norm > 0) scale = std::min(1.0, options_.max_grad_norm / (report.gradient_norm + 1e-6));
  ++updates_;
  AdamWStep(ops_, options_.adamw, learning_rate, updates_, scale, student_.resident());
  student_.Repack(&weights_);
  SWIFTKV_RETURN_IF_ERROR(ops_.TakeError());
  return report;
}

Status Trainer::Impl::Restore(std::span<const Parameter> parameters, int64_t updates) {
  const std::span<const ResidentParameter> own = student_.resident();
  if (parameters.size() != own.size()) {
    return InvalidInput("the saved state has {} tensors, the student has {}", parameters.size(), own.size());
  }
  for (size_t i = 0; i < own.size(); ++i) {
    const Parameter& saved = parameters[i];
    const auto size = static_cast<size_t>(own[i].size);
    if (saved.name != own[i].name || saved.value.size() != size || saved.first_moment.size() != size ||
        saved.second_moment.size() != size) {
      return InvalidInput("the saved state's tensor {} ({}) is not the student's {} ({} values)", i, saved.name,
                          own[i].name, size);
    }
  }
  student_.Restore(parameters);
  updates_ = updates;
  student_.Repack(&weights_);
  return ops_.TakeError();
}

Result<std::unique_ptr<Trainer>> Trainer::Create(const ModelConfig& student, const TensorSource& base,
                                                 const TensorSource& start, const TrainerOptions& options) {
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t hidden_layer, HiddenLossLayer(student, options));
  SWIFTKV_ASSIGN_OR_RETURN(Weights weights, LoadWeights(student, base, &start, WeightsOf(options)));
  SWIFTKV_ASSIGN_OR_RETURN(Student trained, Student::Create(student, start, *weights.backend, options.dtype));
  SWIFTKV_ASSIGN_OR_RETURN(TransposedWeights transposed, TransposedWeights::Create(weights));
  return std::unique_ptr<Trainer>(new Trainer(
      std::make_unique<Impl>(std::move(weights), std::move(trained), std::move(transposed), options, hidden_layer)));
}

Result<std::unique_ptr<Trainer>> Trainer::CreateRandom(const ModelConfig& student, uint64_t seed,
                                                       const TrainerOptions& options) {
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t hidden_layer, HiddenLossLayer(student, options));
  SWIFTKV_ASSIGN_OR_RETURN(Weights weights, RandomWeights(student, seed, WeightsOf(options)));
  SWIFTKV_ASSIGN_OR_RETURN(Student trained, Student::FromWeights(weights));
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
Gradients Trainer::gradients() const { return impl_->student().gradients(); }
const Student& Trainer::student() const { return impl_->student(); }
const ModelConfig& Trainer::config() const { return impl_->config(); }
const kernels::Backend& Trainer::backend() const { return impl_->backend(); }
int64_t Trainer::updates() const { return impl_->updates(); }
Status Trainer::Restore(std::vector<Parameter> parameters, int64_t updates) {
  return impl_->Restore(parameters, updates);
}

}  // namespace swiftkv
