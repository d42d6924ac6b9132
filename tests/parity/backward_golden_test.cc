// Every backward operation, on every backend, against PyTorch's autograd: tests/golden/distill/kernels.safetensors,
// made by tools/make_distill_kernel_goldens.py.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "checkpoint/tensor_source.h"
#include "distill/gradient_products.h"
#include "distill/logits_loss.h"
#include "distill/optimizer.h"
#include "kernels/ops.h"

namespace swiftkv {
namespace {

using Floats = std::vector<float>;

const StoredTensor& Stored(const std::string& name) {
  static const auto* source = new Result<std::unique_ptr<TensorSource>>(
      OpenSafetensors(SWIFTKV_SOURCE_DIR "/tests/golden/distill/kernels.safetensors"));
  static const StoredTensor empty;
  const StoredTensor* tensor = *source ? (**source)->Find(name) : nullptr;
  if (tensor == nullptr) ADD_FAILURE() << "no golden " << name;
  return tensor != nullptr ? *tensor : empty;
}
template <class T>
std::vector<T> Values(const std::string& name) {
  const StoredTensor& tensor = Stored(name);
  std::vector<T> values(tensor.data.size() / sizeof(T));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}
Floats Golden(const std::string& name) { return Values<float>(name); }
std::vector<int32_t> Ints(const std::string& name) { return Values<int32_t>(name); }

// |actual - expected| <= 1e-5 |expected|, in 2-norms: ten times closer than distillation needs.
void ExpectClose(const Floats& actual, const Floats& expected, const char* what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double d = static_cast<double>(actual[i]) - static_cast<double>(expected[i]);
    difference += d * d;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  EXPECT_LE(std::sqrt(difference), 1e-5 * std::sqrt(norm)) << what;
}

class BackwardGoldenTest : public testing::TestWithParam<const kernels::Backend*> {
 protected:
  const kernels::Backend& backend() const { return *GetParam(); }
  const kernels::BackwardOps& ops() const { return GetParam()->backward(); }
};

TEST_P(BackwardGoldenTest, Linear) {
  kernels::PackedMatrix w = *backend().AllocatePacked(13, 21, DType::kF32);
  backend().PackRows(Golden("linear.w").data(), 0, 13, &w);
  const kernels::PackedMatrix transposed = *TransposePacked(backend(), w);
  const Floats dy = Golden("linear.dy");
  Floats dx(9 * 21), dw(13 * 21), dbias(13);
  backend().Gemm({.x = dy.data(), .x_stride = 13, .m = 9, .w = &transposed, .y = dx.data(), .y_stride = 21});
  ExpectClose(dx, Golden("linear.dx"), "dx");
  WeightGradient gradient(backend(), DType::kF32);
  ASSERT_TRUE(gradient.SetInput(Golden("linear.x").data(), 9, 21));
  ASSERT_TRUE(gradient.Add(dy.data(), 13, dw.data()));
  ExpectClose(dw, Golden("linear.dw"), "dw");
  backend().backward().AddColumnSums({.x = dy.data(), .x_stride = 13, .rows = 9, .size = 13, .sums = dbias.data()});
  ExpectClose(dbias, Golden("linear.dbias"), "dbias");
}

TEST_P(BackwardGoldenTest, RmsNorm) {
  const Floats x = Golden("rms_norm.x"), weight = Golden("rms_norm.weight"), dy = Golden("rms_norm.dy");
  Floats dx(x.size()), dweight(weight.size());
  ops().RmsNorm({.x = x.data(),
                 .x_stride = 21,
                 .weight = weight.data(),
                 .eps = 1e-5f,
                 .rows = 5,
                 .size = 21,
                 .dy = dy.data(),
                 .dy_stride = 21,
                 .dx = dx.data(),
                 .dx_stride = 21,
                 .dweight = dweight.data()});
  ExpectClose(dx, Golden("rms_norm.dx"), "dx");
  ExpectClose(dweight, Golden("rms_norm.dweight"), "dweight");
}

TEST_P(BackwardGoldenTest, RopeAndTheNormBeforeIt) {
  const Floats x = Golden("rope.x"), cos = Golden("rope.cos"), sin = Golden("rope.sin");
  const std::vector<int32_t> positions = Ints("rope.positions");
  Floats d = Golden("rope.dy");
  ops().Rope({.dx = d.data(),
              .dx_stride = 48,
              .rows = 7,
              .heads = 3,
              .head_dim = 16,
              .positions = positions.data(),
              .cos = cos.data(),
              .sin = sin.data()});
  ExpectClose(d, Golden("rope.dx"), "dx");
  const Floats weight = Golden("rope_norm.norm_weight");
  Floats dweight(weight.size());
  ops().RmsNorm({.x = x.data(),
                 .x_stride = 48,
                 .weight = weight.data(),
                 .eps = 1e-6f,
                 .rows = 7,
                 .heads = 3,
                 .size = 16,
                 .dy = d.data(),
                 .dy_stride = 48,
                 .dx = d.data(),
                 .dx_stride = 48,
                 .dweight = dweight.data()});
  ExpectClose(d, Golden("rope_norm.dx"), "dx of the norm");
  ExpectClose(dweight, Golden("rope_norm.dnorm_weight"), "dnorm_weight");
}

TEST_P(BackwardGoldenTest, SiluMul) {
  const Floats gate_up = Golden("silu_mul.gate_up"), dy = Golden("silu_mul.dy");
  Floats gradient(gate_up.size());
  ops().SiluMul({.gate_up = gate_up.data(),
                 .gate_up_stride = 26,
                 .rows = 4,
                 .size = 13,
                 .dy = dy.data(),
                 .dy_stride = 13,
                 .dgate_up = gradient.data(),
                 .dgate_up_stride = 26});
  ExpectClose(gradient, Golden("silu_mul.dgate_up"), "dgate_up");
}

// The forward's log-sum-exp of each query, from its definition.
Floats LogSumExp(const Floats& q, const Floats& k, const std::vector<kernels::AttentionDocument>& documents,
                 int64_t heads, int64_t kv_heads, int64_t dim, int64_t window) {
  Floats result(q.size() / static_cast<size_t>(dim));
  for (const kernels::AttentionDocument& document : documents) {
    for (int64_t r = document.row_begin; r < document.row_begin + document.rows; ++r) {
      for (int64_t head = 0; head < heads; ++head) {
        double sum = 0;
        for (int64_t t = document.row_begin; t <= r; ++t) {
          if (window > 0 && r - t >= window) continue;
          double score = 0;
          for (int64_t i = 0; i < dim; ++i) {
            score += static_cast<double>(q[(r * heads + head) * dim + i]) *
                     static_cast<double>(k[(t * kv_heads + head / (heads / kv_heads)) * dim + i]);
          }
          sum += std::exp(score / std::sqrt(static_cast<double>(dim)));
        }
        result[r * heads + head] = static_cast<float>(std::log(sum));
      }
    }
  }
  return result;
}

TEST_P(BackwardGoldenTest, Attention) {
  for (const std::string name : {"attention.gqa", "attention.mha", "attention.mqa", "attention.window"}) {
    SCOPED_TRACE(name);
    const std::vector<int64_t>& q_shape = Stored(name + ".q").shape;
    const int64_t rows = q_shape[0], heads = q_shape[1], dim = q_shape[2];
    const int64_t kv_heads = Stored(name + ".k").shape[1];
    const int64_t window = Ints(name + ".window")[0];
    std::vector<kernels::AttentionDocument> documents;
    std::vector<int32_t> begins = Ints(name + ".document_begins");
    begins.push_back(static_cast<int32_t>(rows));
    for (size_t i = 0; i + 1 < begins.size(); ++i) documents.push_back({begins[i], begins[i + 1] - begins[i]});
    const Floats q = Golden(name + ".q"), k = Golden(name + ".k"), v = Golden(name + ".v");
    const Floats out = Golden(name + ".y"), dout = Golden(name + ".dy");
    const Floats log_sum_exp = LogSumExp(q, k, documents, heads, kv_heads, dim, window);
    Floats dq(q.size()), dk(k.size()), dv(v.size());
    ops().Attention({.q = q.data(),
                     .q_stride = heads * dim,
                     .k = k.data(),
                     .v = v.data(),
                     .kv_stride = kv_heads * dim,
                     .rows = rows,
                     .heads = heads,
                     .kv_heads = kv_heads,
                     .head_dim = dim,
                     .scale = 1 / std::sqrt(static_cast<float>(dim)),
                     .window = window,
                     .documents = documents,
                     .out = out.data(),
                     .dout = dout.data(),
                     .out_stride = heads * dim,
                     .log_sum_exp = log_sum_exp.data(),
                     .dq = dq.data(),
                     .dq_stride = heads * dim,
                     .dk = dk.data(),
                     .dv = dv.data(),
                     .dkv_stride = kv_heads * dim});
    ExpectClose(dq, Golden(name + ".dq"), "dq");
    ExpectClose(dk, Golden(name + ".dk"), "dk");
    ExpectClose(dv, Golden(name + ".dv"), "dv");
  }
}

TEST_P(BackwardGoldenTest, KlLoss) {
  for (const std::string name : {"kl.t1", "kl.t2", "kl.t3", "kl.unmasked", "kl.large"}) {
    SCOPED_TRACE(name);
    const int64_t vocab = Stored(name + ".teacher").shape[1];
    const std::vector<int32_t> in_loss = Ints(name + ".in_loss");
    const auto positions = static_cast<double>(std::accumulate(in_loss.begin(), in_loss.end(), 0));
    Floats teacher = Golden(name + ".teacher"), student = Golden(name + ".student"), gradient(student.size());
    double loss = 0;
    for (size_t r = 0; r < in_loss.size(); ++r) {
      if (in_loss[r] == 0) continue;
      kernels::KlLossRow row;
      ops().KlLoss({.teacher = teacher.data() + r * vocab,
                    .student = student.data() + r * vocab,
                    .rows = 1,
                    .vocab = vocab,
                    .temperature = Golden(name + ".temperature")[0],
                    .row_scale = static_cast<float>(1 / positions),
                    .dlogits = gradient.data() + r * vocab,
                    .stats = &row});
      const double expected = static_cast<double>(Golden(name + ".per_position")[r]);
      EXPECT_NEAR(row.loss, expected, 1e-5 * (1 + expected));
      loss += row.loss / positions;
    }
    const double expected = static_cast<double>(Golden(name + ".loss")[0]);
    EXPECT_NEAR(loss, expected, 1e-5 * (1 + expected));
    ExpectClose(gradient, Golden(name + ".dstudent"), "dstudent");
  }
}

// The rows of [rows, 24] that count in the loss, put together, `copies` times.
Floats CountedRows(const Floats& rows, const std::vector<int32_t>& in_loss, int64_t copies) {
  Floats counted;
  for (int64_t copy = 0; copy < copies; ++copy) {
    for (int64_t r = 0; r < std::ssize(in_loss); ++r) {
      if (in_loss[r] != 0) counted.insert(counted.end(), rows.begin() + r * 24, rows.begin() + (r + 1) * 24);
    }
  }
  return counted;
}

// Once, and so often that two tiles of logits and a part of one are needed: the mean is the same.
TEST_P(BackwardGoldenTest, LossThroughTheLmHead) {
  Weights weights;
  weights.backend = &backend();
  weights.dtype = DType::kF32;
  weights.config.vocab_size = 300;
  weights.config.hidden_size = 24;
  weights.lm_head = *backend().AllocatePacked(300, 24, DType::kF32);
  backend().PackRows(Golden("lm_head_kl.lm_head").data(), 0, 300, &weights.lm_head);
  const kernels::PackedMatrix transposed = *TransposePacked(backend(), weights.lm_head);
  const std::vector<int32_t> in_loss = Ints("lm_head_kl.in_loss");
  for (const int64_t copies : {1, 30}) {
    SCOPED_TRACE(copies);
    const Floats teacher = CountedRows(Golden("lm_head_kl.teacher"), in_loss, copies);
    const Floats student = CountedRows(Golden("lm_head_kl.student"), in_loss, copies);
    Floats expected = CountedRows(Golden("lm_head_kl.dstudent"), in_loss, copies);
    for (float& value : expected) value /= static_cast<float>(copies);
    const int64_t rows = std::ssize(student) / 24;
    const auto teacher_logits = [&](int64_t begin, int64_t count, float* out) {
      backend().Gemm({.x = teacher.data() + begin * 24,
                      .x_stride = 24,
                      .m = count,
                      .w = &weights.lm_head,
                      .y = out,
                      .y_stride = 300});
    };
    Floats gradient(student.size());
    LogitsLoss loss(weights, transposed, static_cast<double>(Golden("lm_head_kl.temperature")[0]));
    const auto sums = loss.Run(teacher_logits, student.data(), rows, 1 / static_cast<double>(rows), gradient.data());
    ASSERT_TRUE(sums) << sums.error().message;
    EXPECT_EQ(sums->rows, rows);
    const double expected_loss = static_cast<double>(Golden("lm_head_kl.loss")[0]);
    EXPECT_NEAR(sums->loss / static_cast<double>(rows), expected_loss, 1e-5 * expected_loss);
    ExpectClose(gradient, expected, "dstudent");
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, BackwardGoldenTest, testing::ValuesIn(kernels::AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

TEST(HiddenLossGoldenTest, BothKinds) {
  const Floats student = Golden("hidden.student"), teacher = Golden("hidden.teacher");
  for (const auto& [name, relative] : {std::pair("mse", false), {"relative", true}}) {
    Floats gradient(student.size());
    double loss = 0;
    kernels::DefaultBackend().backward().HiddenLoss({.student = student.data(),
                                                     .teacher = teacher.data(),
                                                     .rows = std::ssize(student) / 20,
                                                     .size = 20,
                                                     .relative = relative,
                                                     .tokens = 6,
                                                     .scale = 1.0,
                                                     .loss = &loss,
                                                     .dhidden = gradient.data()});
    const double expected = static_cast<double>(Golden(std::string("hidden.") + name)[0]);
    EXPECT_NEAR(loss, expected, 1e-5 * expected) << name;
    ExpectClose(gradient, Golden(std::string("hidden.d") + name), name);
  }
}

TEST(AdamWGoldenTest, SixClippedStepsWithDecay) {
  const kernels::Backend& backend = kernels::DefaultBackend();
  const Floats values = Golden("adamw.values");
  Floats value = Golden("adamw.value"), gradients = Golden("adamw.gradient"), first(12), second(12);
  for (int64_t step = 0; step < 6; ++step) {
    const ResidentParameter parameter{.name = "value",
                                      .shape = {12},
                                      .size = 12,
                                      .value = value.data(),
                                      .gradient = gradients.data() + step * 12,
                                      .first_moment = first.data(),
                                      .second_moment = second.data()};
    const double scale = std::min(1.0, 1 / (*GradientNorm(backend, {&parameter, 1}) + 1e-6));
    AdamWStep(backend, {.weight_decay = 0.1}, 0.05, step + 1, scale, {&parameter, 1});
    ExpectClose(value, Floats(values.begin() + step * 12, values.begin() + (step + 1) * 12), "value");
  }
  ExpectClose(first, Golden("adamw.first_moment"), "first_moment");
  ExpectClose(second, Golden("adamw.second_moment"), "second_moment");
}

}  // namespace
}  // namespace swiftkv
