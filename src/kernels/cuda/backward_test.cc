// The backward operations on the GPU but for attention's against the reference: at sizes with every kind of tail,
// aligned for vectors and not. What no operation may touch is poisoned.
#include "kernels/cuda/backward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/backward_ops.h"
#include "kernels/cuda/backward_test_device.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels::cuda {
namespace {

// Rows in memory: the first begins `offset` elements behind the array's begin.
struct Layout {
  int64_t offset = 0;
  int64_t stride = 0;
};
// For vectors where the size allows it, and never.
std::vector<Layout> LayoutsFor(int64_t size) { return {{0, (size + 15) / 8 * 8}, {1, size + 3}}; }

// ---- RMSNorm

struct RmsNormCase {
  int64_t rows, heads, size;
  Layout layout;
  bool accumulate = false;
  bool in_place = false;  // dx is dy
};

void TestRmsNorm(const CudaBackwardOps& ops, const RmsNormCase& c) {
  const int64_t elements = c.layout.offset + c.rows * c.layout.stride;
  const Floats x = RandomFloats(elements, 1), dy = RandomFloats(elements, 2), weight = RandomFloats(c.size, 3);
  Floats expected_dx = c.in_place ? dy : Floats(dy.size(), 2.0f);
  Floats expected_dweight = RandomFloats(c.size, 4);
  const Array<float> device_x(x), device_dy(dy), device_weight(weight), dx(expected_dx), dweight(expected_dweight);
  RmsNormBackwardArgs args{.x = x.data() + c.layout.offset,
                           .x_stride = c.layout.stride,
                           .weight = weight.data(),
                           .eps = 1e-5f,
                           .rows = c.rows,
                           .heads = c.heads,
                           .size = c.size,
                           .dy = dy.data() + c.layout.offset,
                           .dy_stride = c.layout.stride,
                           .dx = expected_dx.data() + c.layout.offset,
                           .dx_stride = c.layout.stride,
                           .accumulate = c.accumulate,
                           .dweight = expected_dweight.data()};
  RefBackend().backward().RmsNorm(args);
  args.x = device_x.get() + c.layout.offset;
  args.weight = device_weight.get();
  args.dx = dx.get() + c.layout.offset;
  args.dy = c.in_place ? args.dx : device_dy.get() + c.layout.offset;
  args.dweight = dweight.get();
  ops.RmsNorm(args);
  const std::string what = fmt::format("{} rows of {} x {}", c.rows, c.heads, c.size);
  ExpectClose(dx.Read(), expected_dx, 3e-6, "dx of " + what);
  ExpectClose(dweight.Read(), expected_dweight, 3e-6, "dweight of " + what);
}

TEST_F(CudaBackwardTest, RmsNorm) {
  for (const int64_t size : {1, 7, 37, 128, 576, 4096, 4099, 16388}) {
    for (const int64_t heads : {1, 3}) {
      for (const Layout& layout : LayoutsFor(heads * size)) {
        TestRmsNorm(ops(), {.rows = 5, .heads = heads, .size = size, .layout = layout});
        TestRmsNorm(ops(), {.rows = 3, .heads = heads, .size = size, .layout = layout, .accumulate = true});
        TestRmsNorm(ops(), {.rows = 3, .heads = heads, .size = size, .layout = layout, .in_place = true});
      }
    }
  }
  TestRmsNorm(ops(), {.rows = 1500, .heads = 8, .size = 128, .layout = {0, 1024}});
}

TEST_F(CudaBackwardTest, RmsNormOfOneGradientAlone) {
  const Floats x = RandomFloats(60, 1), dy = RandomFloats(60, 2), weight = RandomFloats(20, 3);
  const Array<float> device_x(x), device_dy(dy), device_weight(weight), dx(Floats(60)), dweight(Floats(20));
  Floats expected_dx(60), expected_dweight(20);
  RmsNormBackwardArgs args{.x = x.data(),
                           .x_stride = 20,
                           .weight = weight.data(),
                           .rows = 3,
                           .size = 20,
                           .dy = dy.data(),
                           .dy_stride = 20,
                           .dx = expected_dx.data(),
                           .dx_stride = 20,
                           .dweight = expected_dweight.data()};
  reference().RmsNorm(args);
  args.x = device_x.get();
  args.weight = device_weight.get();
  args.dy = device_dy.get();
  args.dx = dx.get();
  args.dweight = nullptr;
  ops().RmsNorm(args);
  args.dx = nullptr;
  args.dweight = dweight.get();
  ops().RmsNorm(args);
  ExpectClose(dx.Read(), expected_dx, 3e-6, "dx");
  ExpectClose(dweight.Read(), expected_dweight, 3e-6, "dweight");
}

// ---- Elements of rows

TEST_F(CudaBackwardTest, Rope) {
  for (const int64_t head_dim : {2, 22, 64, 128}) {
    const int64_t rows = 7, heads = 3, stride = heads * head_dim + 5;
    const Floats cos = Normal(9 * head_dim / 2, 1), sin = Normal(9 * head_dim / 2, 2);
    const std::vector<int32_t> positions = {8, 0, 3, 3, 1, 7, 2};
    Floats expected = Normal(rows * stride, 3);
    const Array<float> dx(expected), device_cos(cos), device_sin(sin);
    const Array<int32_t> device_positions(positions);
    RopeBackwardArgs args{.dx = expected.data(),
                          .dx_stride = stride,
                          .rows = rows,
                          .heads = heads,
                          .head_dim = head_dim,
                          .positions = positions.data(),
                          .cos = cos.data(),
                          .sin = sin.data()};
    reference().Rope(args);
    args.dx = dx.get();
    args.positions = device_positions.get();
    args.cos = device_cos.get();
    args.sin = device_sin.get();
    ops().Rope(args);
    ExpectClose(dx.Read(), expected, 1e-6, "heads of " + std::to_string(head_dim));
  }
}

template <typename T>
void TestSiluMul(const CudaBackwardOps& ops, int64_t size, const Layout& of_gate_up, const Layout& of_dy) {
  constexpr int64_t kRows = 3;
  Floats gates = Normal(of_gate_up.offset + kRows * of_gate_up.stride, 1, 4);
  gates[of_gate_up.offset] = -200;  // e^200 overflows
  const std::vector<T> gate_up = As<T>(gates), dy = As<T>(Normal(of_dy.offset + kRows * of_dy.stride, 2));
  std::vector<T> expected = As<T>(Floats(gates.size(), kPoison));
  const Array<T> device_gate_up(gate_up), device_dy(dy), out(expected);
  SiluMulBackwardArgs args{.gate_up = gate_up.data() + of_gate_up.offset,
                           .gate_up_stride = of_gate_up.stride,
                           .rows = kRows,
                           .size = size,
                           .dy = dy.data() + of_dy.offset,
                           .dy_stride = of_dy.stride,
                           .dgate_up = expected.data() + of_gate_up.offset,
                           .dgate_up_stride = of_gate_up.stride,
                           .dtype = kDTypeOf<T>};
  RefBackend().backward().SiluMul(args);
  args.gate_up = device_gate_up.get() + of_gate_up.offset;
  args.dy = device_dy.get() + of_dy.offset;
  args.dgate_up = out.get() + of_gate_up.offset;
  ops.SiluMul(args);
  const Floats actual = AsFloats(out.Read());
  const Floats wanted = AsFloats(expected);
  const float relative = std::is_same_v<T, float> ? 5e-6f : 8e-3f;  // of bf16 at most one unit in the last place
  for (size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_NEAR(actual[i], wanted[i], relative * std::abs(wanted[i]) + 1e-6f) << i << " with rows of " << size;
  }
}

TEST_F(CudaBackwardTest, SiluMul) {
  for (const int64_t size : {1, 45, 576, 4096, 14336}) {
    const std::vector<Layout> of_gate_up = LayoutsFor(2 * size), of_dy = LayoutsFor(size);
    for (size_t i = 0; i < of_dy.size(); ++i) {
      ASSERT_NO_FATAL_FAILURE(TestSiluMul<float>(ops(), size, of_gate_up[i], of_dy[i]));
      ASSERT_NO_FATAL_FAILURE(TestSiluMul<BFloat16>(ops(), size, of_gate_up[i], of_dy[i]));
    }
  }
}

TEST_F(CudaBackwardTest, RoundAndScatterRows) {
  for (const int64_t size : {1, 21, 576, 4096}) {
    for (const Layout& layout : LayoutsFor(size)) {
      const int64_t rows = 3, elements = layout.offset + rows * layout.stride;
      const Floats x = RandomFloats(elements, 1);
      Floats same(elements, kPoison);
      BFloat16s rounded = ToBFloat16(same);
      const Array<float> device_x(x), device_same(same);
      const Array<BFloat16> device_rounded(rounded);
      RoundArgs args{.x = x.data() + layout.offset,
                     .x_stride = layout.stride,
                     .rows = rows,
                     .size = size,
                     .out = same.data() + layout.offset,
                     .out_stride = layout.stride};
      reference().Round(args);
      args.out = rounded.data() + layout.offset;
      args.dtype = DType::kBF16;
      reference().Round(args);
      args.x = device_x.get() + layout.offset;
      args.out = device_rounded.get() + layout.offset;
      ops().Round(args);
      args.out = device_same.get() + layout.offset;
      args.dtype = DType::kF32;
      ops().Round(args);
      EXPECT_EQ(device_same.Read(), same);
      EXPECT_EQ(AsFloats(device_rounded.Read()), AsFloats(rounded));

      const std::vector<int32_t> to = {4, 0, 3};
      const Array<int32_t> device_to(to);
      Floats scattered(6 * size, kPoison);
      const Array<float> device_scattered(scattered);
      reference().ScatterRows({.x = x.data(), .rows = to.data(), .count = 3, .size = size, .out = scattered.data()});
      ops().ScatterRows(
          {.x = device_x.get(), .rows = device_to.get(), .count = 3, .size = size, .out = device_scattered.get()});
      EXPECT_EQ(device_scattered.Read(), scattered);
    }
  }
}

template <typename T>
void TestTranspose(const CudaBackwardOps& ops, int64_t rows, int64_t columns) {
  const int64_t x_stride = columns + 3, out_stride = rows + 1;
  const std::vector<T> x = As<T>(Normal(rows * x_stride, 1));
  std::vector<T> expected = As<T>(Floats(columns * out_stride, kPoison));
  const Array<T> device_x(x), out(expected);
  TransposeArgs args{.x = x.data(),
                     .x_stride = x_stride,
                     .rows = rows,
                     .columns = columns,
                     .out = expected.data(),
                     .out_stride = out_stride,
                     .dtype = kDTypeOf<T>};
  RefBackend().backward().Transpose(args);
  args.x = device_x.get();
  args.out = out.get();
  ops.Transpose(args);
  EXPECT_EQ(AsFloats(out.Read()), AsFloats(expected)) << rows << " x " << columns;
}

TEST_F(CudaBackwardTest, Transpose) {
  for (const auto& [rows, columns] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {64, 64}, {65, 130}, {200, 3}, {1, 300}, {513, 700}}) {
    TestTranspose<float>(ops(), rows, columns);
    TestTranspose<BFloat16>(ops(), rows, columns);
  }
}

TEST_F(CudaBackwardTest, AddColumnSums) {
  for (const int64_t rows : {1, 31, 33, 9000}) {
    for (const int64_t size : {1, 130, 384}) {
      const int64_t stride = size + 2;
      const Floats x = Normal(rows * stride, 1);
      const Floats before = Normal(size, 2);
      std::vector<double> expected(before.begin(), before.end());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < size; ++i) expected[i] += x[r * stride + i];
      }
      const Array<float> device_x(x), sums(before);
      ops().AddColumnSums({.x = device_x.get(), .x_stride = stride, .rows = rows, .size = size, .sums = sums.get()});
      ExpectClose(sums.Read(), Floats(expected.begin(), expected.end()), 1e-6, std::to_string(rows) + " rows");
    }
  }
}

// ---- Losses

struct KlCase {
  int64_t rows, vocab;
  float temperature;
  float distance;  // of the student's logits from the teacher's
};

template <typename T>
void TestKlLoss(const CudaBackwardOps& ops, const KlCase& c) {
  Floats teacher = Normal(c.rows * c.vocab, 1, 3);
  Floats student = Normal(c.rows * c.vocab, 2, c.distance);
  for (size_t i = 0; i < student.size(); ++i) student[i] += teacher[i];
  const Array<float> device_teacher(teacher), device_student(student);
  std::vector<T> expected = As<T>(Floats(teacher.size() + 1, kPoison));
  const Array<T> dlogits(expected);
  std::vector<KlLossRow> expected_stats(c.rows);
  const Array<KlLossRow> stats(expected_stats);
  KlLossArgs args{.teacher = teacher.data(),
                  .student = student.data(),
                  .rows = c.rows,
                  .vocab = c.vocab,
                  .temperature = c.temperature,
                  .row_scale = 0.25f,
                  .dlogits = expected.data(),
                  .dtype = kDTypeOf<T>,
                  .stats = expected_stats.data()};
  RefBackend().backward().KlLoss(args);
  args.teacher = device_teacher.get();
  args.student = device_student.get();
  args.dlogits = dlogits.get();
  args.stats = stats.get();
  ops.KlLoss(args);
  const std::string what = fmt::format("vocab {} temperature {} distance {}", c.vocab, c.temperature, c.distance);
  const Floats actual = AsFloats(dlogits.Read());
  EXPECT_EQ(actual.back(), AsFloats(expected).back()) << what;
  Floats gradient(actual.begin(), actual.end() - 1);
  const Floats wanted = AsFloats(expected);
  ExpectClose(gradient, Floats(wanted.begin(), wanted.end() - 1), sizeof(T) == 4 ? 1e-5 : 2e-3, what);
  const std::vector<KlLossRow> actual_stats = stats.Read();
  for (int64_t r = 0; r < c.rows; ++r) {
    EXPECT_NEAR(actual_stats[r].loss, expected_stats[r].loss, 1e-6 * (1 + expected_stats[r].loss)) << what;
    EXPECT_EQ(actual_stats[r].agree, expected_stats[r].agree) << what;
  }
}

TEST_F(CudaBackwardTest, KlLoss) {
  for (const int64_t vocab : {2, 5, 97, 4096, 9001, 128256}) {
    for (const float temperature : {1.0f, 2.5f}) {
      for (const float distance : {1.0f, 0.1f, 10.0f}) {
        TestKlLoss<float>(ops(), {.rows = 3, .vocab = vocab, .temperature = temperature, .distance = distance});
        TestKlLoss<BFloat16>(ops(), {.rows = 3, .vocab = vocab, .temperature = temperature, .distance = distance});
      }
    }
  }
}

TEST_F(CudaBackwardTest, KlLossOfRowsThatAreEqualIsZero) {
  const Floats logits = Normal(2 * 1000, 1, 3);
  const Array<float> teacher(logits), student(logits), dlogits(Floats(logits.size(), kPoison));
  const Array<KlLossRow> stats(std::vector<KlLossRow>(2));
  ops().KlLoss({.teacher = teacher.get(),
                .student = student.get(),
                .rows = 2,
                .vocab = 1000,
                .row_scale = 1,
                .dlogits = dlogits.get(),
                .stats = stats.get()});
  EXPECT_EQ(dlogits.Read(), Floats(logits.size()));
  for (const KlLossRow& row : stats.Read()) {
    EXPECT_EQ(row.loss, 0);
    EXPECT_TRUE(row.agree);
  }
}

TEST_F(CudaBackwardTest, HiddenLoss) {
  for (const bool relative : {false, true}) {
    for (const int64_t size : {1, 37, 4096}) {
      for (const int64_t rows : {1, 5, 700}) {
        if (rows * size > 500'000) continue;
        const Floats student = Normal(rows * size, 1);
        Floats teacher = Normal(rows * size, 2);
        std::fill_n(teacher.begin(), rows > 1 ? size : 0, 0.0f);  // nothing to be relative to
        Floats expected = Normal(rows * size, 3);
        double expected_loss = 1;
        const Array<float> device_student(student), device_teacher(teacher), dhidden(expected);
        const Array<double> loss({expected_loss});
        HiddenLossArgs args{.student = student.data(),
                            .teacher = teacher.data(),
                            .rows = rows,
                            .size = size,
                            .relative = relative,
                            .tokens = 2 * rows,
                            .scale = 0.3,
                            .loss = &expected_loss,
                            .dhidden = expected.data()};
        reference().HiddenLoss(args);
        args.student = device_student.get();
        args.teacher = device_teacher.get();
        args.loss = loss.get();
        args.dhidden = dhidden.get();
        ops().HiddenLoss(args);
        EXPECT_NEAR(loss.Read()[0], expected_loss, 1e-12 * expected_loss);
        ExpectClose(dhidden.Read(), expected, 1e-6, "dhidden");
      }
    }
  }
}

// ---- The optimizer

TEST_F(CudaBackwardTest, SumOfSquares) {
  for (const int64_t size : {1, 1000, 4'100'003}) {
    const Floats x = Normal(size + 1, 1);
    const Array<float> device_x(x);
    for (const int64_t offset : {0, 1}) {
      const Array<double> sum({0.5});
      ops().SumOfSquares({.x = device_x.get() + offset, .size = size, .sum = sum.get()});
      double expected = 0.5;
      for (int64_t i = offset; i < offset + size; ++i) expected += static_cast<double>(x[i]) * x[i];
      EXPECT_NEAR(sum.Read()[0], expected, 1e-11 * expected) << size;
    }
  }
}

// The same bytes as on a CPU.
TEST_F(CudaBackwardTest, AdamW) {
  for (const int64_t size : {5, 4096, 10001}) {
    Floats value = Normal(size, 1), m = Normal(size, 2, 0.1f), v(size, 0.01f);
    BFloat16s rounded(size);
    const Floats gradient = Normal(size, 3);
    const Array<float> device_value(value), device_m(m), device_v(v), device_gradient(gradient);
    const Array<BFloat16> device_rounded(rounded);
    AdamWArgs args{.size = size,
                   .gradient_scale = 0.37f,
                   .beta1 = 0.9f,
                   .beta2 = 0.999f,
                   .rest1 = 0.1f,
                   .rest2 = 0.001f,
                   .keep = 0.9999f,
                   .step_size = 3e-3f,
                   .root = 1.7f,
                   .epsilon = 1e-8f};
    for (int step = 0; step < 3; ++step) {
      args.value = value.data();
      args.first_moment = m.data();
      args.second_moment = v.data();
      args.gradient = gradient.data();
      args.rounded = rounded.data();
      reference().AdamW(args);
      args.value = device_value.get();
      args.first_moment = device_m.get();
      args.second_moment = device_v.get();
      args.gradient = device_gradient.get();
      args.rounded = step == 1 ? nullptr : device_rounded.get();
      ops().AdamW(args);
    }
    EXPECT_EQ(device_value.Read(), value);
    EXPECT_EQ(device_m.Read(), m);
    EXPECT_EQ(device_v.Read(), v);
    EXPECT_EQ(AsFloats(device_rounded.Read()), AsFloats(rounded));
  }
}

}  // namespace
}  // namespace swiftkv::kernels::cuda
