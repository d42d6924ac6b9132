// Every backend's gradients against the reference, and the reference's against finite differences of the forward.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "base/parallel.h"
#include "kernels/backward_ops.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

using Floats = std::vector<float>;

Floats Values(int64_t size, unsigned seed, float scale = 1) {
  Floats values = RandomFloats(size, seed, scale);
  for (float& value : values) value = std::clamp(value, -4 * scale, 4 * scale);
  return values;
}

// The tensors of one type: float32, or rounded to bf16 and stored so.
struct Typed {
  Floats f32;
  std::vector<BFloat16> bf16;
  const void* data(DType dtype) const {
    return dtype == DType::kBF16 ? static_cast<const void*>(bf16.data()) : static_cast<const void*>(f32.data());
  }
};
Typed MakeTyped(Floats values) { return {values, ToBFloat16(values)}; }

Floats FromBFloat16(const std::vector<BFloat16>& values) {
  Floats out(values.size());
  std::transform(values.begin(), values.end(), out.begin(), [](BFloat16 v) { return ToFloat(v); });
  return out;
}

double Norm(const Floats& values) {
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

void ExpectClose(const Floats& actual, const Floats& expected, double relative, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  Floats difference(actual.size());
  for (size_t i = 0; i < actual.size(); ++i) difference[i] = actual[i] - expected[i];
  EXPECT_LE(Norm(difference), relative * Norm(expected)) << what;
}

// d(sum_i weight_i f(x)_i)/dx by central differences.
Floats FiniteDifferences(Floats x, const Floats& weight, const std::function<Floats(const Floats&)>& f) {
  const float step = 1e-2f;
  Floats gradient(x.size());
  const auto objective = [&] {
    const Floats y = f(x);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(y[i]) * weight[i];
    return sum;
  };
  for (size_t i = 0; i < x.size(); ++i) {
    const float saved = x[i];
    x[i] = saved + step;
    const double above = objective();
    x[i] = saved - step;
    const double below = objective();
    x[i] = saved;
    gradient[i] = static_cast<float>((above - below) / (2 * static_cast<double>(step)));
  }
  return gradient;
}

// ---- Forward passes of the reference, as functions of one input.

Floats RmsNormForward(const Floats& x, const Floats& weight, int64_t rows) {
  const auto size = static_cast<int64_t>(weight.size());
  Floats y(x.size());
  RefBackend().RmsNorm({.x = x.data(),
                        .x_stride = size,
                        .weight = weight.data(),
                        .eps = 1e-5f,
                        .rows = rows,
                        .size = size,
                        .out = y.data(),
                        .out_stride = size});
  return y;
}

struct AttentionShape {
  int64_t heads, kv_heads, head_dim, window;
  std::vector<int64_t> documents;
  int64_t rows() const { return std::accumulate(documents.begin(), documents.end(), int64_t{0}); }
};

struct AttentionForward {
  Floats out;
  Floats log_sum_exp;
};

AttentionForward RunAttention(const Backend& backend, const AttentionShape& s, const Floats& q, const Floats& k,
                              const Floats& v, DType dtype) {
  const int64_t rows = s.rows();
  std::vector<int64_t> slots;
  std::vector<int32_t> positions;
  std::vector<std::vector<int32_t>> tables;
  int64_t blocks = 0;
  for (const int64_t length : s.documents) {
    std::vector<int32_t>& table = tables.emplace_back();
    for (int64_t t = 0; t < length; ++t) {
      if (t % kBlockTokens == 0) table.push_back(static_cast<int32_t>(blocks++));
      slots.push_back((blocks - 1) * kBlockTokens + t % kBlockTokens);
      positions.push_back(static_cast<int32_t>(t));
    }
  }
  std::vector<std::byte> cache(static_cast<size_t>(blocks * backend.KvBlockBytes(s.kv_heads, s.head_dim, dtype)));
  const int64_t kv_size = s.kv_heads * s.head_dim;
  backend.WriteKv({.k = k.data(),
                   .v = v.data(),
                   .k_stride = kv_size,
                   .v_stride = kv_size,
                   .rows = rows,
                   .kv_heads = s.kv_heads,
                   .head_dim = s.head_dim,
                   .slots = slots.data(),
                   .cache = cache.data(),
                   .cache_dtype = dtype});
  std::vector<AttentionSequence> sequences;
  int64_t row = 0;
  for (size_t i = 0; i < s.documents.size(); ++i) {
    sequences.push_back({row, s.documents[i], positions.data() + row, tables[i].data()});
    row += s.documents[i];
  }
  AttentionForward result{Floats(q.size()), Floats(static_cast<size_t>(rows * s.heads))};
  backend.Attention({.q = q.data(),
                     .q_stride = s.heads * s.head_dim,
                     .heads = s.heads,
                     .kv_heads = s.kv_heads,
                     .head_dim = s.head_dim,
                     .scale = 0.3f,
                     .window = s.window,
                     .cache = cache.data(),
                     .cache_dtype = dtype,
                     .sequences = sequences,
                     .out = result.out.data(),
                     .out_stride = s.heads * s.head_dim,
                     .log_sum_exp = result.log_sum_exp.data()});
  return result;
}

struct AttentionGradients {
  Floats dq, dk, dv;
};

AttentionGradients RunAttentionBackward(const Backend& backend, const AttentionShape& s, const Floats& q,
                                        const Floats& k, const Floats& v, const Floats& dout, DType dtype) {
  const AttentionForward forward = RunAttention(RefBackend(), s, q, k, v, dtype);
  const Typed out = MakeTyped(forward.out);
  const Typed gradient = MakeTyped(dout);
  std::vector<AttentionDocument> documents;
  int64_t row = 0;
  for (const int64_t length : s.documents) {
    documents.push_back({row, length});
    row += length;
  }
  const int64_t kv_size = s.kv_heads * s.head_dim;
  AttentionGradients g{Floats(q.size(), 99.0f), Floats(k.size(), 0.5f), Floats(v.size(), 0.25f)};
  backend.backward().Attention({.q = q.data(),
                                .q_stride = s.heads * s.head_dim,
                                .k = k.data(),
                                .v = v.data(),
                                .kv_stride = kv_size,
                                .rows = s.rows(),
                                .heads = s.heads,
                                .kv_heads = s.kv_heads,
                                .head_dim = s.head_dim,
                                .scale = 0.3f,
                                .window = s.window,
                                .documents = documents,
                                .out = out.data(dtype),
                                .dout = gradient.data(dtype),
                                .out_stride = s.heads * s.head_dim,
                                .dtype = dtype,
                                .log_sum_exp = forward.log_sum_exp.data(),
                                .dq = g.dq.data(),
                                .dq_stride = s.heads * s.head_dim,
                                .dk = g.dk.data(),
                                .dv = g.dv.data(),
                                .dkv_stride = kv_size});
  for (float& value : g.dk) value -= 0.5f;  // added to what was there
  for (float& value : g.dv) value -= 0.25f;
  return g;
}

// ---- The reference against finite differences.

TEST(RefBackwardTest, RmsNormMatchesFiniteDifferences) {
  const Floats x = Values(2 * 9, 1), weight = Values(9, 2), dy = Values(2 * 9, 3);
  Floats dx(x.size()), dweight(weight.size());
  RefBackend().backward().RmsNorm({.x = x.data(),
                                   .x_stride = 9,
                                   .weight = weight.data(),
                                   .eps = 1e-5f,
                                   .rows = 2,
                                   .size = 9,
                                   .dy = dy.data(),
                                   .dy_stride = 9,
                                   .dx = dx.data(),
                                   .dx_stride = 9,
                                   .dweight = dweight.data()});
  ExpectClose(dx, FiniteDifferences(x, dy, [&](const Floats& v) { return RmsNormForward(v, weight, 2); }), 2e-3, "dx");
  ExpectClose(dweight, FiniteDifferences(weight, dy, [&](const Floats& v) { return RmsNormForward(x, v, 2); }), 2e-3,
              "dweight");
}

TEST(RefBackwardTest, SiluMulMatchesFiniteDifferences) {
  const Floats gate_up = Values(2 * 14, 1), dy = Values(2 * 7, 2);
  const auto forward = [](const Floats& x) {
    Floats y(14);
    RefBackend().SiluMul(
        {.gate_up = x.data(), .gate_up_stride = 14, .rows = 2, .size = 7, .out = y.data(), .out_stride = 7});
    return y;
  };
  Floats gradient(gate_up.size());
  RefBackend().backward().SiluMul({.gate_up = gate_up.data(),
                                   .gate_up_stride = 14,
                                   .rows = 2,
                                   .size = 7,
                                   .dy = dy.data(),
                                   .dy_stride = 7,
                                   .dgate_up = gradient.data(),
                                   .dgate_up_stride = 14});
  ExpectClose(gradient, FiniteDifferences(gate_up, dy, forward), 2e-3, "dgate_up");
}

TEST(RefBackwardTest, RopeIsUndoneByItsBackward) {
  const Floats angles = Values(5 * 4, 3);
  Floats cos(angles.size()), sin(angles.size());
  for (size_t i = 0; i < angles.size(); ++i) {
    cos[i] = std::cos(angles[i]);
    sin[i] = std::sin(angles[i]);
  }
  const int32_t positions[] = {0, 4, 2};
  const Floats x = Values(3 * 2 * 8, 4);
  Floats y = x;
  RefBackend().Rope({.x = y.data(),
                     .x_stride = 16,
                     .rows = 3,
                     .heads = 2,
                     .head_dim = 8,
                     .positions = positions,
                     .cos = cos.data(),
                     .sin = sin.data()});
  RefBackend().backward().Rope({.dx = y.data(),
                                .dx_stride = 16,
                                .rows = 3,
                                .heads = 2,
                                .head_dim = 8,
                                .positions = positions,
                                .cos = cos.data(),
                                .sin = sin.data()});
  ExpectClose(y, x, 1e-6, "a rotation's transpose is its inverse");
}

TEST(RefBackwardTest, AttentionMatchesFiniteDifferences) {
  for (const int64_t window : {0, 2}) {
    const AttentionShape s{4, 2, 3, window, {3, 1, 4}};
    const Floats q = Values(s.rows() * 12, 1), k = Values(s.rows() * 6, 2), v = Values(s.rows() * 6, 3);
    const Floats dout = Values(s.rows() * 12, 4);
    const AttentionGradients g = RunAttentionBackward(RefBackend(), s, q, k, v, dout, DType::kF32);
    const auto forward = [&](const Floats& q2, const Floats& k2, const Floats& v2) {
      return RunAttention(RefBackend(), s, q2, k2, v2, DType::kF32).out;
    };
    ExpectClose(g.dq, FiniteDifferences(q, dout, [&](const Floats& x) { return forward(x, k, v); }), 2e-3, "dq");
    ExpectClose(g.dk, FiniteDifferences(k, dout, [&](const Floats& x) { return forward(q, x, v); }), 2e-3, "dk");
    ExpectClose(g.dv, FiniteDifferences(v, dout, [&](const Floats& x) { return forward(q, k, x); }), 2e-3, "dv");
  }
}

TEST(RefBackwardTest, KlLossMatchesFiniteDifferences) {
  const int64_t vocab = 11;
  const float temperature = 2;
  const Floats teacher = Values(2 * vocab, 1), student = Values(2 * vocab, 2);
  const auto loss = [&](const Floats& s) {
    Floats t = teacher, copy = s, unused(s.size());
    KlLossRow rows[2];
    RefBackend().backward().KlLoss({.teacher = t.data(),
                                    .student = copy.data(),
                                    .rows = 2,
                                    .vocab = vocab,
                                    .temperature = temperature,
                                    .row_scale = 0.5f,
                                    .dlogits = unused.data(),
                                    .stats = rows});
    return Floats{static_cast<float>(rows[0].loss), static_cast<float>(rows[1].loss)};
  };
  Floats t = teacher, s = student, gradient(s.size());
  KlLossRow rows[2];
  RefBackend().backward().KlLoss({.teacher = t.data(),
                                  .student = s.data(),
                                  .rows = 2,
                                  .vocab = vocab,
                                  .temperature = temperature,
                                  .row_scale = 0.5f,
                                  .dlogits = gradient.data(),
                                  .stats = rows});
  ExpectClose(gradient, FiniteDifferences(student, {0.5f, 0.5f}, loss), 2e-3, "dlogits");
  EXPECT_GT(rows[0].loss, 0);
}

// ---- What all CPUs have in common.

TEST(CommonBackwardTest, TransposeAndScatterRows) {
  const int64_t rows = 70, columns = 131;
  const Typed x = MakeTyped(Values(rows * columns, 1));
  Floats f32(x.f32.size());
  std::vector<BFloat16> bf16(x.f32.size());
  TransposeArgs args{
      .x = x.f32.data(), .x_stride = columns, .rows = rows, .columns = columns, .out = f32.data(), .out_stride = rows};
  RefBackend().backward().Transpose(args);
  args.x = x.bf16.data();
  args.out = bf16.data();
  args.dtype = DType::kBF16;
  RefBackend().backward().Transpose(args);
  const Floats rounded = FromBFloat16(bf16), from = FromBFloat16(x.bf16);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      ASSERT_EQ(f32[c * rows + r], x.f32[r * columns + c]);
      ASSERT_EQ(rounded[c * rows + r], from[r * columns + c]);
    }
  }
  const Floats two = {1, 2, 3, 4};
  const int32_t to[] = {2, 0};
  Floats scattered(6, 9);
  RefBackend().backward().ScatterRows({.x = two.data(), .rows = to, .count = 2, .size = 2, .out = scattered.data()});
  EXPECT_EQ(scattered, (Floats{3, 4, 9, 9, 1, 2}));
}

TEST(CommonBackwardTest, SumsAreAddedToWhatIsThere) {
  const Floats x = {1, 2, 3, 4, 5, 6};
  Floats sums = {10, 20};
  RefBackend().backward().AddColumnSums({.x = x.data(), .x_stride = 3, .rows = 2, .size = 2, .sums = sums.data()});
  EXPECT_EQ(sums, (Floats{15, 27}));
  double sum = 0.5;
  RefBackend().backward().SumOfSquares({.x = x.data(), .size = 6, .sum = &sum});
  EXPECT_EQ(sum, 91.5);
}

TEST(CommonBackwardTest, HiddenLoss) {
  const Floats student = {1, 2, 3, 4}, teacher = {0, 2, 1, 0};
  for (const bool relative : {false, true}) {
    double loss = 1;
    Floats dhidden(4, 1.0f);
    RefBackend().backward().HiddenLoss({.student = student.data(),
                                        .teacher = teacher.data(),
                                        .rows = 2,
                                        .size = 2,
                                        .relative = relative,
                                        .tokens = 4,
                                        .scale = 0.5,
                                        .loss = &loss,
                                        .dhidden = dhidden.data()});
    const double first = relative ? 4.0 : 2.0, second = relative ? 1.0 : 2.0;  // what squares are divided by
    EXPECT_DOUBLE_EQ(loss, 1 + 1 / (4 * first) + 20 / (4 * second));
    EXPECT_FLOAT_EQ(dhidden[0], static_cast<float>(1 + 1 / (4 * first)));
    EXPECT_FLOAT_EQ(dhidden[3], static_cast<float>(1 + 4 / (4 * second)));
  }
}

TEST(CommonBackwardTest, AdamW) {
  Floats value = {2}, m = {0.5f}, v = {0.25f};
  std::vector<BFloat16> rounded(1);
  const Floats gradient = {4};
  RefBackend().backward().AdamW({.value = value.data(),
                                 .first_moment = m.data(),
                                 .second_moment = v.data(),
                                 .gradient = gradient.data(),
                                 .size = 1,
                                 .rounded = rounded.data(),
                                 .gradient_scale = 0.5f,
                                 .beta1 = 0.75f,
                                 .beta2 = 0.5f,
                                 .rest1 = 0.25f,
                                 .rest2 = 0.5f,
                                 .keep = 0.5f,
                                 .step_size = 0.125f,
                                 .root = 2,
                                 .epsilon = 0.5f});
  EXPECT_FLOAT_EQ(m[0], 0.875f);
  EXPECT_FLOAT_EQ(v[0], 2.125f);
  EXPECT_FLOAT_EQ(value[0], 1 - 0.125f * 0.875f / (2 * std::sqrt(2.125f) + 0.5f));
  EXPECT_EQ(FromBFloat16(rounded), FromBFloat16(ToBFloat16(value)));
}

// ---- Every backend against the reference.

class BackwardTest : public testing::TestWithParam<const Backend*> {
 protected:
  const Backend& backend() const { return *GetParam(); }
};

TEST_P(BackwardTest, RmsNorm) {
  const int64_t rows = 131, heads = 2, size = 37, stride = heads * size + 3;
  const Floats x = Values(rows * stride, 1), weight = Values(size, 2), dy = Values(rows * stride, 3);
  const auto run = [&](const Backend& b, bool accumulate, Floats* dweight) {
    Floats dx(x.size(), 1.0f);
    b.backward().RmsNorm({.x = x.data(),
                          .x_stride = stride,
                          .weight = weight.data(),
                          .eps = 1e-5f,
                          .rows = rows,
                          .heads = heads,
                          .size = size,
                          .dy = dy.data(),
                          .dy_stride = stride,
                          .dx = dx.data(),
                          .dx_stride = stride,
                          .accumulate = accumulate,
                          .dweight = dweight->data()});
    return dx;
  };
  for (const bool accumulate : {false, true}) {
    Floats dweight(size, 2.0f), expected_dweight(size, 2.0f);
    ExpectClose(run(backend(), accumulate, &dweight), run(RefBackend(), accumulate, &expected_dweight), 1e-6, "dx");
    ExpectClose(dweight, expected_dweight, 1e-6, "dweight");
  }
}

TEST_P(BackwardTest, RmsNormInPlaceAndWeightAlone) {
  const int64_t rows = 3, size = 20;
  const Floats x = Values(rows * size, 1), weight = Values(size, 2);
  Floats dy = Values(rows * size, 3), expected(dy.size());
  RmsNormBackwardArgs args{.x = x.data(),
                           .x_stride = size,
                           .weight = weight.data(),
                           .eps = 1e-5f,
                           .rows = rows,
                           .size = size,
                           .dy = dy.data(),
                           .dy_stride = size,
                           .dx = expected.data(),
                           .dx_stride = size};
  RefBackend().backward().RmsNorm(args);
  Floats alone(size), expected_alone(size);
  args.dx = nullptr;
  args.dweight = alone.data();
  backend().backward().RmsNorm(args);
  args.dweight = expected_alone.data();
  RefBackend().backward().RmsNorm(args);
  ExpectClose(alone, expected_alone, 1e-6, "dweight");
  args.dweight = nullptr;
  args.dx = dy.data();
  backend().backward().RmsNorm(args);
  ExpectClose(dy, expected, 1e-6, "dx in the place of dy");
}

TEST_P(BackwardTest, Rope) {
  const int64_t rows = 5, heads = 3, head_dim = 22;
  const Floats cos = Values(9 * 11, 1), sin = Values(9 * 11, 2);
  const int32_t positions[] = {8, 0, 3, 3, 1};
  const auto run = [&](const Backend& b) {
    Floats d = Values(rows * heads * head_dim, 3);
    b.backward().Rope({.dx = d.data(),
                       .dx_stride = heads * head_dim,
                       .rows = rows,
                       .heads = heads,
                       .head_dim = head_dim,
                       .positions = positions,
                       .cos = cos.data(),
                       .sin = sin.data()});
    return d;
  };
  ExpectClose(run(backend()), run(RefBackend()), 1e-6, "dx");
}

TEST_P(BackwardTest, SiluMul) {
  const int64_t rows = 7, size = 45;
  const Typed gate_up = MakeTyped(Values(rows * 2 * size, 1, 2)), dy = MakeTyped(Values(rows * size, 2));
  const auto run = [&](const Backend& b, DType dtype) {
    Floats f32(gate_up.f32.size());
    std::vector<BFloat16> bf16(f32.size());
    void* out = dtype == DType::kBF16 ? static_cast<void*>(bf16.data()) : static_cast<void*>(f32.data());
    b.backward().SiluMul({.gate_up = gate_up.data(dtype),
                          .gate_up_stride = 2 * size,
                          .rows = rows,
                          .size = size,
                          .dy = dy.data(dtype),
                          .dy_stride = size,
                          .dgate_up = out,
                          .dgate_up_stride = 2 * size,
                          .dtype = dtype});
    return dtype == DType::kBF16 ? FromBFloat16(bf16) : f32;
  };
  ExpectClose(run(backend(), DType::kF32), run(RefBackend(), DType::kF32), 1e-6, "f32");
  ExpectClose(run(backend(), DType::kBF16), run(RefBackend(), DType::kBF16), 1e-4, "bf16");
}

TEST_P(BackwardTest, Round) {
  const int64_t rows = 3, size = 21;
  const Floats x = Values(rows * size, 1);
  Floats same(x.size());
  std::vector<BFloat16> rounded(x.size());
  backend().backward().Round(
      {.x = x.data(), .x_stride = size, .rows = rows, .size = size, .out = same.data(), .out_stride = size});
  EXPECT_EQ(same, x);
  backend().backward().Round({.x = x.data(),
                              .x_stride = size,
                              .rows = rows,
                              .size = size,
                              .out = rounded.data(),
                              .out_stride = size,
                              .dtype = DType::kBF16});
  EXPECT_EQ(FromBFloat16(rounded), FromBFloat16(ToBFloat16(x)));
}

TEST_P(BackwardTest, Attention) {
  const std::vector<AttentionShape> shapes = {
      {4, 2, 16, 0, {70, 1, 64, 130}}, {3, 3, 20, 0, {65}}, {6, 1, 64, 0, {129, 31}}, {2, 1, 40, 50, {200}}};
  for (const AttentionShape& s : shapes) {
    const int64_t q_size = s.heads * s.head_dim, kv_size = s.kv_heads * s.head_dim;
    const Floats q = Values(s.rows() * q_size, 1), k = Values(s.rows() * kv_size, 2);
    const Floats v = Values(s.rows() * kv_size, 3), dout = Values(s.rows() * q_size, 4);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const AttentionGradients actual = RunAttentionBackward(backend(), s, q, k, v, dout, dtype);
      const AttentionGradients expected = RunAttentionBackward(RefBackend(), s, q, k, v, dout, dtype);
      const double relative = dtype == DType::kF32 ? 1e-5 : 5e-3;
      ExpectClose(actual.dq, expected.dq, relative, "dq");
      ExpectClose(actual.dk, expected.dk, relative, "dk");
      ExpectClose(actual.dv, expected.dv, relative, "dv");
    }
  }
}

TEST_P(BackwardTest, AttentionForwardTellsItsLogSumExp) {
  const AttentionShape s{4, 2, 16, 0, {600, 3}};
  const Floats q = Values(s.rows() * 64, 1), k = Values(s.rows() * 32, 2), v = Values(s.rows() * 32, 3);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const AttentionForward actual = RunAttention(backend(), s, q, k, v, dtype);
    const AttentionForward expected = RunAttention(RefBackend(), s, q, k, v, dtype);
    ExpectClose(actual.log_sum_exp, expected.log_sum_exp, 1e-5, "log_sum_exp");
  }
}

TEST_P(BackwardTest, KlLoss) {
  for (const int64_t vocab : {5, 97, 9001}) {
    const int64_t rows = 3;
    const Floats teacher = Values(rows * vocab, 1, 3), student = Values(rows * vocab, 2, 3);
    for (const float temperature : {1.0f, 2.0f, 3.0f}) {
      const auto run = [&](const Backend& b, Floats* dlogits) {
        Floats t = teacher, s = student;
        for (int64_t i = 0; i < vocab; ++i) s[i] = t[i] + 1e-3f * s[i];  // a close row
        std::vector<KlLossRow> stats(rows);
        b.backward().KlLoss({.teacher = t.data(),
                             .student = s.data(),
                             .rows = rows,
                             .vocab = vocab,
                             .temperature = temperature,
                             .row_scale = 0.25f,
                             .dlogits = dlogits->data(),
                             .stats = stats.data()});
        return stats;
      };
      Floats dlogits(teacher.size()), expected_dlogits(teacher.size());
      const std::vector<KlLossRow> stats = run(backend(), &dlogits);
      const std::vector<KlLossRow> expected = run(RefBackend(), &expected_dlogits);
      ExpectClose(dlogits, expected_dlogits, 2e-5, "dlogits");
      for (int64_t r = 0; r < rows; ++r) {
        EXPECT_NEAR(stats[r].loss, expected[r].loss, 1e-5 * (1 + expected[r].loss));
        EXPECT_EQ(stats[r].agree, expected[r].agree);
      }
    }
  }
}

TEST_P(BackwardTest, BytesDoNotDependOnThreads) {
  const AttentionShape s{6, 2, 64, 0, {150, 90}};
  const Floats q = Values(s.rows() * 384, 1), k = Values(s.rows() * 128, 2), v = Values(s.rows() * 128, 3);
  const Floats dout = Values(s.rows() * 384, 4), weight = Values(384, 5);
  const auto run = [&](int threads) {
    SetThreads(threads);
    AttentionGradients g = RunAttentionBackward(backend(), s, q, k, v, dout, DType::kBF16);
    Floats dweight(384);
    backend().backward().RmsNorm({.x = q.data(),
                                  .x_stride = 384,
                                  .weight = weight.data(),
                                  .eps = 1e-5f,
                                  .rows = s.rows(),
                                  .size = 384,
                                  .dy = dout.data(),
                                  .dy_stride = 384,
                                  .dweight = dweight.data()});
    g.dq.insert(g.dq.end(), dweight.begin(), dweight.end());
    g.dq.insert(g.dq.end(), g.dk.begin(), g.dk.end());
    g.dq.insert(g.dq.end(), g.dv.begin(), g.dv.end());
    return g.dq;
  };
  const int threads = Threads();
  const Floats one = run(1);
  EXPECT_EQ(one, run(3));
  EXPECT_EQ(one, run(8));
  SetThreads(threads);
}

INSTANTIATE_TEST_SUITE_P(Backends, BackwardTest, testing::ValuesIn(AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

}  // namespace
}  // namespace swiftkv::kernels
