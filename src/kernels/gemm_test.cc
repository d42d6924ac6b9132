// Gemm of every backend: against the reference on awkward shapes, and its promise of batch invariance.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <string>

#include "base/parallel.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

struct Shape {
  int64_t m, k, n;
};

// Inputs and weights of one product, in one type.
struct Problem {
  Problem(const Shape& s, DType type, float scale)
      : shape(s),
        dtype(type),
        x(RandomFloats(s.m * s.k, 1, scale)),
        weights(RandomFloats(s.n * s.k, 2, scale)),
        bias(RandomFloats(s.n, 3, scale)),
        x_bf16(ToBFloat16(x)) {}

  const void* input() const { return dtype == DType::kBF16 ? static_cast<const void*>(x_bf16.data()) : x.data(); }

  PackedMatrix Pack(const Backend& ops) const {
    Result<PackedMatrix> w = ops.AllocatePacked(shape.n, shape.k, dtype);
    EXPECT_TRUE(w.has_value());
    // Ranges in descending order: any order is allowed.
    for (int64_t row = (shape.n - 1) / 64 * 64; row >= 0; row -= 64) {
      ops.PackRows(weights.data() + row * shape.k, row, std::min<int64_t>(64, shape.n - row), &*w);
    }
    return std::move(*w);
  }

  // sum_i |x_i w_i| of one output: rounding errors are a small multiple of it.
  float Magnitude(int64_t row, int64_t column) const {
    float sum = 0;
    for (int64_t i = 0; i < shape.k; ++i) sum += std::abs(x[row * shape.k + i] * weights[column * shape.k + i]);
    return sum;
  }

  Shape shape;
  DType dtype;
  std::vector<float> x, weights, bias;
  std::vector<BFloat16> x_bf16;
};

class GemmTest : public testing::TestWithParam<const Backend*> {
 protected:
  const Backend& ops() const { return *GetParam(); }
  void TearDown() override { SetThreads(threads_); }

 private:
  int threads_ = Threads();
};

constexpr float kCanary = 12345;

// y of `ops`, [m, n + 3], starting from kCanary everywhere.
std::vector<float> RunF32(const Backend& ops, const Problem& problem, bool bias, bool accumulate) {
  const Shape& s = problem.shape;
  const PackedMatrix w = problem.Pack(ops);
  std::vector<float> y(static_cast<size_t>(s.m * (s.n + 3)), kCanary);
  ops.Gemm({.x = problem.input(),
            .x_stride = s.k,
            .m = s.m,
            .w = &w,
            .bias = bias ? problem.bias.data() : nullptr,
            .y = y.data(),
            .y_stride = s.n + 3,
            .accumulate = accumulate});
  return y;
}

TEST_P(GemmTest, MatchesReference) {
  for (const Shape& shape :
       {Shape{1, 1, 1}, Shape{2, 33, 63}, Shape{3, 64, 64}, Shape{5, 127, 65}, Shape{7, 576, 130}, Shape{13, 1537, 17},
        Shape{4, 3333, 66}, Shape{197, 40, 100}, Shape{61, 1200, 96}, Shape{48, 640, 128}, Shape{0, 8, 8}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const float scale : {1.0f, 300.0f}) {
        const Problem problem(shape, dtype, scale);
        const bool accumulate = shape.m % 2 == 1;
        const std::vector<float> actual = RunF32(ops(), problem, scale == 1, accumulate);
        const std::vector<float> expected = RunF32(RefBackend(), problem, scale == 1, accumulate);
        for (int64_t row = 0; row < shape.m; ++row) {
          for (int64_t column = 0; column < shape.n + 3; ++column) {
            const int64_t i = row * (shape.n + 3) + column;
            const float tolerance =
                column < shape.n ? 1.5e-6f * (problem.Magnitude(row, column) + std::abs(kCanary)) : 0;
            ASSERT_NEAR(actual[i], expected[i], tolerance)
                << shape.m << "x" << shape.k << "x" << shape.n << " row " << row << " column " << column;
          }
        }
      }
    }
  }
}

TEST_P(GemmTest, Bf16OutputIsTheRoundedFloatOutput) {
  for (const Shape& shape : {Shape{9, 70, 77}, Shape{50, 70, 160}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Problem problem(shape, dtype, 1);
      const std::vector<float> y = RunF32(ops(), problem, true, false);
      const PackedMatrix w = problem.Pack(ops());
      std::vector<BFloat16> rounded(static_cast<size_t>(shape.m * shape.n));
      ops().Gemm({.x = problem.input(),
                  .x_stride = shape.k,
                  .m = shape.m,
                  .w = &w,
                  .bias = problem.bias.data(),
                  .y = rounded.data(),
                  .y_stride = shape.n,
                  .y_dtype = DType::kBF16});
      for (int64_t i = 0; i < shape.m * shape.n; ++i) {
        ASSERT_EQ(rounded[i].bits, swiftkv::ToBFloat16(y[i / shape.n * (shape.n + 3) + i % shape.n]).bits) << i;
      }
    }
  }
}

TEST_P(GemmTest, BytesOfARowDependOnThatRowAlone) {
  constexpr int64_t kRows = 512;
  for (const Shape& shape : {Shape{kRows, 576, 200}, Shape{kRows, 4096, 72}}) {
    if (GetParam() == &RefBackend() && shape.k > 1000) continue;  // one chain by construction; slow
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Problem problem(shape, dtype, 1);
      const PackedMatrix w = problem.Pack(ops());
      const size_t row_bytes = static_cast<size_t>(shape.n) * sizeof(float);
      const auto run = [&](int64_t row, int64_t m, int threads) {
        SetThreads(threads);
        std::vector<float> y(static_cast<size_t>(m * shape.n));
        const auto* x = static_cast<const std::byte*>(problem.input()) + row * shape.k * (dtype == DType::kF32 ? 4 : 2);
        ops().Gemm({.x = x, .x_stride = shape.k, .m = m, .w = &w, .y = y.data(), .y_stride = shape.n});
        return y;
      };
      const std::vector<float> all = run(0, kRows, 1);
      for (const int64_t m : {1, 2, 3, 7, 16, 17, 64, 75, 255, 512}) {
        const int64_t row = std::min<int64_t>(m, kRows - m);
        for (int threads = 1; threads <= 4; ++threads) {
          const std::vector<float> some = run(row, m, threads);
          ASSERT_EQ(std::memcmp(some.data(), all.data() + row * shape.n, row_bytes * static_cast<size_t>(m)), 0)
              << "k " << shape.k << " m " << m << " threads " << threads;
        }
      }
    }
  }
}

// Memory that ends where the next page can't be touched.
class GuardedMemory {
 public:
  explicit GuardedMemory(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    void* data = mmap(nullptr, whole_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(data, MAP_FAILED);
    base_ = static_cast<std::byte*>(data);
    EXPECT_EQ(mprotect(base_ + whole_, kPage, PROT_NONE), 0);
  }
  ~GuardedMemory() { munmap(base_, whole_ + kPage); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  std::byte* data() const { return base_ + whole_ - bytes_; }

 private:
  static constexpr size_t kPage = 4096;
  size_t bytes_;
  size_t whole_ = (bytes_ + kPage - 1) / kPage * kPage;
  std::byte* base_ = nullptr;
};

TEST_P(GemmTest, ReadsNothingBetweenAndAfterTheRowsOfInputs) {
  for (const Shape& shape : {Shape{5, 576, 40}, Shape{70, 576, 40}, Shape{85, 77, 40}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Problem problem(shape, dtype, 1);
      const PackedMatrix w = problem.Pack(ops());
      const std::vector<float> expected = RunF32(ops(), problem, false, false);
      const int64_t element = dtype == DType::kF32 ? sizeof(float) : sizeof(BFloat16);
      for (const int64_t stride : {shape.k, shape.k + 1, int64_t{1024}}) {
        const GuardedMemory x(((shape.m - 1) * stride + shape.k) * element);
        std::memset(x.data(), 0xff, static_cast<size_t>(((shape.m - 1) * stride + shape.k) * element));  // NaN
        for (int64_t row = 0; row < shape.m; ++row) {
          std::memcpy(x.data() + row * stride * element,
                      static_cast<const std::byte*>(problem.input()) + row * shape.k * element,
                      static_cast<size_t>(shape.k * element));
        }
        const GuardedMemory y(shape.m * shape.n * static_cast<int64_t>(sizeof(float)));
        ops().Gemm({.x = x.data(), .x_stride = stride, .m = shape.m, .w = &w, .y = y.data(), .y_stride = shape.n});
        for (int64_t row = 0; row < shape.m; ++row) {
          ASSERT_EQ(std::memcmp(y.data() + row * shape.n * 4, &expected[row * (shape.n + 3)],
                                static_cast<size_t>(shape.n) * sizeof(float)),
                    0)
              << "m " << shape.m << " k " << shape.k << " stride " << stride << " row " << row;
        }
      }
    }
  }
}

TEST_P(GemmTest, UnpackRowsInvertsPackRows) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Problem problem({0, 1601, 131}, dtype, 1);
    const PackedMatrix w = problem.Pack(ops());
    const std::vector<int32_t> ids = {130, 0, 64, 63, 0};
    std::vector<float> out(ids.size() * 1601);
    ops().UnpackRows(w, ids.data(), static_cast<int64_t>(ids.size()), out.data());
    for (size_t i = 0; i < out.size(); ++i) {
      const float value = problem.weights[ids[i / 1601] * 1601 + i % 1601];
      ASSERT_EQ(out[i], dtype == DType::kF32 ? value : ToFloat(swiftkv::ToBFloat16(value))) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllBackends, GemmTest, testing::ValuesIn(AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

}  // namespace
}  // namespace swiftkv::kernels
