#include "model/calibration.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/parallel.h"
#include "model/attention_received.h"
#include "model/swiftkv_transform.h"

namespace swiftkv {
namespace {

constexpr int64_t kTokensPerStep = 2048;
constexpr int64_t kHeadSumsLimit = int64_t{2} << 30;

TokenWeights DefaultTokenWeights(const ModelConfig& student) {
  const int64_t groups = student.kv_groups() - student.num_key_value_layers;
  const int64_t grams = groups * student.num_key_value_heads;
  const int64_t limit = kHeadSumsLimit / static_cast<int64_t>(sizeof(double)) / student.hidden_size;
  return grams <= limit / student.hidden_size ? TokenWeights::kHead : TokenWeights::kLayer;
}

// Feeds the fits of all KV groups >= n while the teacher runs.
class Collector : public ForwardObserver {
 public:
  Collector(const Weights& teacher, const ModelConfig& student, std::vector<float> norm, TokenWeights weights)
      : teacher_(teacher),
        student_(student),
        norm_(std::move(norm)),
        weights_(weights),
        attention_(student, *teacher.backend) {
    for (int64_t owner = student.num_key_value_layers; owner < student.num_hidden_layers;
         owner += student.key_value_group_size) {
      groups_.emplace_back(student_, owner, weights);
    }
  }

  void StartBatch(std::span<const TokenSequence> sequences) {
    lengths_.clear();
    for (const TokenSequence& sequence : sequences) lengths_.push_back(static_cast<int64_t>(sequence.size()));
  }
  // The first error of the observer's own work.
  const Status& status() const { return status_; }
  const std::vector<GroupFit>& groups() const { return groups_; }

  void LayerInput(int64_t layer, std::span<const float> hidden) override {
    if (layer != student_.num_key_value_layers || !status_) return;
    const int64_t size = student_.hidden_size;
    const int64_t rows = static_cast<int64_t>(hidden.size()) / size;
    normed_.resize(hidden.size());
    teacher_.backend->RmsNorm({.x = hidden.data(),
                               .x_stride = size,
                               .weight = norm_.data(),
                               .eps = static_cast<float>(student_.rms_norm_eps),
                               .rows = rows,
                               .size = size,
                               .out = normed_.data(),
                               .out_stride = size,
                               .out_dtype = DType::kF32});
    status_ = tile_.SetInputs(*teacher_.backend, normed_.data(), rows, size);
  }

  void Projections(int64_t layer, std::span<const float> q, std::span<const float> k,
                   std::span<const float> v) override {
    if (layer < student_.num_key_value_layers || !status_) return;
    const int64_t index = (layer - student_.num_key_value_layers) % student_.key_value_group_size;
    GroupFit& group = groups_[static_cast<size_t>(student_.kv_group(layer) - student_.num_key_value_layers)];
    // The last layer's queries may come in a second call.
    if (!k.empty()) {
      k_.assign(k.begin(), k.end());
      group.SetKeysValues(index, k, v);
    }
    if (q.empty()) return;
    const size_t rows = q.size() / static_cast<size_t>(student_.q_size());
    received_.resize(rows * static_cast<size_t>(student_.num_key_value_heads));
    if (weights_ != TokenWeights::kUniform) status_ = ComputeReceived(layer, q);
    if (!status_) return;
    group.SetReceived(index, received_);
    if (index == student_.key_value_group_size - 1) group.Add(&tile_);
  }

 private:
  Status ComputeReceived(int64_t layer, std::span<const float> q) {
    const LayerWeights& weights = teacher_.layers[static_cast<size_t>(layer)];
    return attention_.Compute(layer, lengths_, q, k_, weights.q_norm.empty() ? nullptr : weights.q_norm.data(),
                              weights.k_norm.empty() ? nullptr : weights.k_norm.data(), received_.data());
  }

  const Weights& teacher_;
  const ModelConfig& student_;
  std::vector<float> norm_;
  TokenWeights weights_;
  AttentionReceived attention_;
  std::vector<GroupFit> groups_;
  std::vector<int64_t> lengths_;
  std::vector<float> normed_;
  std::vector<float> k_;
  std::vector<float> received_;
  RidgeTile tile_;
  Status status_ = Ok();
};

// Multiplies the pairs of the queries' dimensions with the factors of one layer: rows of q_proj and its bias.
void TurnQueries(const ModelConfig& student, std::span<const std::complex<double>> factor, int64_t columns,
                 std::vector<float>* rows) {
  const int64_t half = student.head_dim / 2;
  for (int64_t head = 0; head < student.num_attention_heads; ++head) {
    const int64_t kv_head = head * student.num_key_value_heads / student.num_attention_heads;
    for (int64_t pair = 0; pair < half; ++pair) {
      const std::complex<double> turn = factor[static_cast<size_t>(kv_head * half + pair)];
      float* real = rows->data() + (head * student.head_dim + pair) * columns;
      float* imaginary = real + half * columns;
      for (int64_t i = 0; i < columns; ++i) {
        const std::complex<double> turned =
            turn * std::complex<double>(static_cast<double>(real[i]), static_cast<double>(imaginary[i]));
        real[i] = static_cast<float>(turned.real());
        imaginary[i] = static_cast<float>(turned.imag());
      }
    }
  }
}

// Puts a group's solution into the student's tensors.
Status StoreGroup(const ModelConfig& student, const TensorSource& base, int64_t owner, const GroupSolution& solution,
                  MemoryTensors* tensors) {
  const auto set = [&](std::string_view part, const std::vector<float>& values, int64_t columns) {
    const auto rows = static_cast<int64_t>(values.size()) / columns;
    const std::string name = AttentionTensorName(owner, part);
    tensors->Set(name, part.ends_with("bias") ? std::vector{rows} : std::vector{rows, columns}, values);
  };
  set("k_proj_swiftkv.weight", solution.k_weight, student.hidden_size);
  set("v_proj_swiftkv.weight", solution.v_weight, student.hidden_size);
  if (student.qkv_bias) set("k_proj_swiftkv.bias", solution.k_bias, 1);
  if (student.qkv_bias) set("v_proj_swiftkv.bias", solution.v_bias, 1);
  if (solution.query_factor.empty()) return Ok();

  const int64_t factors = student.kv_size() / 2;
  for (int64_t index = 0; index < student.key_value_group_size; ++index) {
    const auto factor =
        std::span(solution.query_factor).subspan(static_cast<size_t>(index * factors), static_cast<size_t>(factors));
    for (const std::string_view part : {"weight", "bias"}) {
      if (part == "bias" && !student.qkv_bias) continue;
      const std::vector<int64_t> shape =
          part == "weight" ? std::vector{student.q_size(), student.hidden_size} : std::vector{student.q_size()};
      const std::string teacher_name = AttentionTensorName(owner + index, fmt::format("q_proj.{}", part));
      SWIFTKV_ASSIGN_OR_RETURN(std::vector<float> q, ReadTensor(base, teacher_name, shape));
      TurnQueries(student, factor, part == "weight" ? student.hidden_size : 1, &q);
      tensors->Set(AttentionTensorName(owner + index, fmt::format("q_proj_swiftkv.{}", part)), shape, q);
    }
  }
  return Ok();
}

// The o_proj weights of a group that is shared; nothing for g = 1, where no layer has to give way.
Result<std::vector<std::vector<float>>> OutputProjections(const ModelConfig& student, const TensorSource& base,
                                                          int64_t owner) {
  std::vector<std::vector<float>> weights;
  if (student.key_value_group_size == 1) return weights;
  for (int64_t layer = owner; layer < owner + student.key_value_group_size; ++layer) {
    SWIFTKV_ASSIGN_OR_RETURN(weights.emplace_back(), ReadTensor(base, AttentionTensorName(layer, "o_proj.weight"),
                                                                {student.hidden_size, student.q_size()}));
  }
  return weights;
}

}  // namespace

Result<Calibration> Calibrate(const Weights& teacher, const ModelConfig& student, const TensorSource& base,
                              std::span<const TokenSequence> sequences, DType dtype,
                              const CalibrationOptions& options) {
  SWIFTKV_ASSIGN_OR_RETURN(MemoryTensors tensors, InitStudent(student, base, Init::kScaled, dtype));
  Calibration calibration{std::move(tensors), {}, {}, 0};
  if (!student.is_swiftkv()) return calibration;
  calibration.token_weights = options.token_weights.value_or(DefaultTokenWeights(student));

  const int64_t n = student.num_key_value_layers;
  Collector collector(teacher, student, GuardedNorm(teacher.layers[static_cast<size_t>(n)].input_layernorm),
                      calibration.token_weights);
  int64_t total = 0;
  for (const TokenSequence& sequence : sequences) total += static_cast<int64_t>(sequence.size());
  SequenceRunner runner(teacher, Mode::kTeacher);
  for (const std::span<const TokenSequence> batch : Batches(sequences, kTokensPerStep)) {
    collector.StartBatch(batch);
    SWIFTKV_RETURN_IF_ERROR(runner.Run(batch, &collector));
    SWIFTKV_RETURN_IF_ERROR(collector.status());
    for (const TokenSequence& sequence : batch) calibration.tokens += static_cast<int64_t>(sequence.size());
    if (options.progress) SWIFTKV_RETURN_IF_ERROR(options.progress(calibration.tokens, total));
  }

  const auto groups = static_cast<int64_t>(collector.groups().size());
  std::vector<Result<GroupSolution>> solutions(static_cast<size_t>(groups), GroupSolution{});
  ParallelFor(groups, [&](int64_t group) {
    const int64_t owner = n + group * student.key_value_group_size;
    auto& solution = solutions[static_cast<size_t>(group)];
    const auto o_proj = OutputProjections(student, base, owner);
    if (!o_proj) {
      solution = tl::unexpected<Error>(o_proj.error());
      return;
    }
    solution = collector.groups()[static_cast<size_t>(group)].Solve(options.lambda, *o_proj);
  });
  for (int64_t group = 0; group < groups; ++group) {
    SWIFTKV_ASSIGN_OR_RETURN(const GroupSolution solution, std::move(solutions[static_cast<size_t>(group)]));
    SWIFTKV_RETURN_IF_ERROR(
        StoreGroup(student, base, n + group * student.key_value_group_size, solution, &calibration.tensors));
    calibration.fits.insert(calibration.fits.end(), solution.fits.begin(), solution.fits.end());
  }
  return calibration;
}

}  // namespace swiftkv
