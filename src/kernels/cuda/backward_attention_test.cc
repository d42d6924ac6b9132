// The backward of attention on the GPU against the reference, which takes q, K, V and the gradients rounded as the
// kernels have them. Rows of no document are NaN.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/backward.h"
#include "kernels/cuda/backward_ops.h"
#include "kernels/cuda/backward_test_device.h"
#include "kernels/ops.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Scene {
  int64_t heads, kv_heads, head_dim;
  std::vector<int64_t> documents;  // rows
  int64_t window = 0;
  DType dtype = DType::kBF16;
};

std::ostream& operator<<(std::ostream& os, const Scene& s) {
  os << s.heads << "/" << s.kv_heads << " heads of " << s.head_dim << ", window " << s.window << ", " << Name(s.dtype)
     << ", documents of";
  for (const int64_t rows : s.documents) os << " " << rows;
  return os;
}

// Inputs of the backward with the forward's results, in double from what products take. Between the documents, and
// behind the last, lie rows of NaN.
class AttentionInputs {
 public:
  explicit AttentionInputs(const Scene& scene) : scene_(scene) {
    for (const int64_t length : scene.documents) {
      documents.push_back({rows, length});
      rows += length + 2;
    }
    q_size = scene.heads * scene.head_dim;
    kv_size = scene.kv_heads * scene.head_dim;
    q = RowsOf(q_size + 8, q_size, 1, 2);
    k = RowsOf(kv_size + 4, kv_size, 2, 1);
    v = RowsOf(kv_size + 4, kv_size, 3, 1);
    dout = RowsOf(q_size + 16, q_size, 4, 1);
    out = dout;
    log_sum_exp.assign(rows * scene.heads, kNan);
    for (const AttentionDocument& document : documents) {
      for (int64_t r = 0; r < document.rows; ++r) {
        for (int64_t head = 0; head < scene.heads; ++head) Attend(document, r, head);
      }
    }
  }

  bool IsOfDocument(int64_t row) const {
    return std::any_of(documents.begin(), documents.end(), [row](const AttentionDocument& document) {
      return row >= document.row_begin && row < document.row_begin + document.rows;
    });
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(scene_.head_dim)); }

  int64_t rows = 1;
  int64_t q_size, kv_size;
  std::vector<AttentionDocument> documents;
  Floats q, k, v, out, dout;  // strides: q_size + 8, kv_size + 4, q_size + 16
  Floats log_sum_exp;

 private:
  Floats RowsOf(int64_t stride, int64_t size, unsigned seed, float deviation) const {
    const Floats normal = Normal(rows * stride, seed, deviation);
    Floats values(normal.size(), kNan);
    for (const AttentionDocument& document : documents) {
      for (int64_t r = document.row_begin; r < document.row_begin + document.rows; ++r) {
        std::copy_n(&normal[r * stride], size, &values[r * stride]);
      }
    }
    return values;
  }
  double Rounded(float value) const {
    return scene_.dtype == DType::kBF16 ? ToFloat(swiftkv::ToBFloat16(value)) : value;
  }

  void Attend(const AttentionDocument& document, int64_t r, int64_t head) {
    const int64_t kv_head = head / (scene_.heads / scene_.kv_heads);
    const int64_t first = scene_.window > 0 ? std::max<int64_t>(0, r - scene_.window + 1) : 0;
    const int64_t row = document.row_begin + r;
    const float* query = &q[row * (q_size + 8) + head * scene_.head_dim];
    std::vector<double> weights;
    const auto at = [&](int64_t t) { return (document.row_begin + t) * (kv_size + 4) + kv_head * scene_.head_dim; };
    for (int64_t t = first; t <= r; ++t) {
      double dot = 0;
      for (int64_t i = 0; i < scene_.head_dim; ++i) dot += Rounded(query[i]) * Rounded(k[at(t) + i]);
      weights.push_back(dot * scale());
    }
    const double max = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - max);
    log_sum_exp[row * scene_.heads + head] = static_cast<float>(max + std::log(sum));
    for (int64_t i = 0; i < scene_.head_dim; ++i) {
      double result = 0;
      for (int64_t t = first; t <= r; ++t) result += weights[t - first] / sum * Rounded(v[at(t) + i]);
      out[row * (q_size + 16) + head * scene_.head_dim + i] = static_cast<float>(result);
    }
  }

  Scene scene_;
};

struct Gradients {
  Floats dq, dk, dv;
};

template <typename T>
AttentionBackwardArgs MakeArgs(const Scene& scene, const AttentionInputs& in) {
  return {.q_stride = in.q_size + 8,
          .kv_stride = in.kv_size + 4,
          .rows = in.rows,
          .heads = scene.heads,
          .kv_heads = scene.kv_heads,
          .head_dim = scene.head_dim,
          .scale = in.scale(),
          .window = scene.window,
          .documents = in.documents,
          .out_stride = in.q_size + 16,
          .dtype = kDTypeOf<T>,
          .dq_stride = in.q_size + 2,
          .dkv_stride = in.kv_size + 2};
}

Gradients Before(const AttentionInputs& in) {
  return {Floats(in.rows * (in.q_size + 2), kPoison), Normal(in.rows * (in.kv_size + 2), 5, 0.1f),
          Normal(in.rows * (in.kv_size + 2), 6, 0.1f)};
}

template <typename T>
Gradients Expected(const Scene& scene, const AttentionInputs& in) {
  Gradients gradients = Before(in);
  const std::vector<T> out = As<T>(in.out), dout = As<T>(in.dout);
  AttentionBackwardArgs args = MakeArgs<T>(scene, in);
  args.q = in.q.data();
  args.k = in.k.data();
  args.v = in.v.data();
  args.out = out.data();
  args.dout = dout.data();
  args.log_sum_exp = in.log_sum_exp.data();
  args.dq = gradients.dq.data();
  args.dk = gradients.dk.data();
  args.dv = gradients.dv.data();
  RefBackend().backward().Attention(args);
  return gradients;
}

template <typename T>
Gradients Actual(const CudaBackwardOps& ops, const Scene& scene, const AttentionInputs& in) {
  const Gradients before = Before(in);
  const Array<float> q(in.q), k(in.k), v(in.v), log_sum_exp(in.log_sum_exp);
  const Array<T> out(As<T>(in.out)), dout(As<T>(in.dout));
  const Array<float> dq(before.dq), dk(before.dk), dv(before.dv);
  AttentionBackwardArgs args = MakeArgs<T>(scene, in);
  args.q = q.get();
  args.k = k.get();
  args.v = v.get();
  args.out = out.get();
  args.dout = dout.get();
  args.log_sum_exp = log_sum_exp.get();
  args.dq = dq.get();
  args.dk = dk.get();
  args.dv = dv.get();
  ops.Attention(args);
  return {dq.Read(), dk.Read(), dv.Read()};
}

// Each head of the documents' rows by its length and the mean one's; all else must be the same.
void CompareGradients(const AttentionInputs& in, const Floats& actual, const Floats& expected, const Floats& before,
                      int64_t size, int64_t head_dim, double tolerance, const std::string& what) {
  const int64_t stride = size + 2;
  const auto square = [](double x) { return x * x; };
  double total = 0;
  for (size_t i = 0; i < expected.size(); ++i) total += square(static_cast<double>(expected[i]) - before[i]);
  const double mean = std::sqrt(total / static_cast<double>(in.rows * size / head_dim));
  for (int64_t begin = 0; begin < in.rows * stride;) {
    const bool beside = begin % stride == size;
    const int64_t end = begin + (beside ? stride - size : head_dim);
    double error = 0;
    double length = 0;
    for (int64_t i = begin; i < end; ++i) {
      error += square(static_cast<double>(actual[i]) - expected[i]);
      length += square(static_cast<double>(expected[i]) - before[i]);
    }
    const bool written = !beside && in.IsOfDocument(begin / stride);
    // With a window of one token gradients of scores cancel, and what float32 rounds is all there is.
    constexpr double kRounding = 1e-4;
    ASSERT_LE(std::sqrt(error), written ? tolerance * (std::sqrt(length) + mean) + kRounding : 0)
        << what << " row " << begin / stride << " element " << begin % stride;
    begin = end;
  }
}

template <typename T>
void TestAttention(const CudaBackwardOps& ops, const Scene& scene) {
  const AttentionInputs in(scene);
  const Gradients expected = Expected<T>(scene, in);
  const Gradients actual = Actual<T>(ops, scene, in);
  Gradients before = Before(in);
  // What dq was before isn't added to.
  for (size_t i = 0; i < before.dq.size(); ++i) {
    if (expected.dq[i] != kPoison) before.dq[i] = 0;
  }
  const double tolerance = scene.dtype == DType::kBF16 ? 5e-3 : 1e-5;
  CompareGradients(in, actual.dq, expected.dq, before.dq, in.q_size, scene.head_dim, tolerance, "dq");
  CompareGradients(in, actual.dk, expected.dk, before.dk, in.kv_size, scene.head_dim, tolerance, "dk");
  CompareGradients(in, actual.dv, expected.dv, before.dv, in.kv_size, scene.head_dim, tolerance, "dv");
}

void TestScene(const CudaBackwardOps& ops, const Scene& scene) {
  SCOPED_TRACE(testing::Message() << scene);
  if (scene.dtype == DType::kBF16) {
    TestAttention<BFloat16>(ops, scene);
  } else {
    TestAttention<float>(ops, scene);
  }
}

TEST_F(CudaBackwardTest, AttentionOnTensorCores) {
  for (const int64_t head_dim : {64, 128}) {
    for (const int64_t group : {1, 3, 4, 8}) {
      TestScene(ops(), {.heads = group, .kv_heads = 1, .head_dim = head_dim, .documents = {70, 1, 64, 130, 17}});
    }
    TestScene(ops(), {.heads = 4, .kv_heads = 2, .head_dim = head_dim, .documents = {300, 63, 65}});
  }
}

TEST_F(CudaBackwardTest, AttentionOnTensorCoresWithWindow) {
  for (const int64_t head_dim : {64, 128}) {
    for (const int64_t window : {1, 2, 5, 63, 64, 65, 66, 100, 128, 1000}) {
      TestScene(ops(), {.heads = 2, .kv_heads = 1, .head_dim = head_dim, .documents = {200, 70}, .window = window});
    }
  }
}

TEST_F(CudaBackwardTest, AttentionOfALongDocument) {
  TestScene(ops(), {.heads = 2, .kv_heads = 1, .head_dim = 128, .documents = {1100, 3}});
  TestScene(ops(), {.heads = 2, .kv_heads = 2, .head_dim = 64, .documents = {900}});
}

TEST_F(CudaBackwardTest, AttentionInPlainFloat) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t window : {0, 5, 64}) {
      TestScene(ops(),
                {.heads = 3, .kv_heads = 1, .head_dim = 8, .documents = {65, 1, 30}, .window = window, .dtype = dtype});
      TestScene(ops(),
                {.heads = 8, .kv_heads = 2, .head_dim = 80, .documents = {70, 5}, .window = window, .dtype = dtype});
    }
  }
  for (const int64_t head_dim : {64, 128, 256}) {
    TestScene(ops(), {.heads = 4, .kv_heads = 1, .head_dim = head_dim, .documents = {130}, .dtype = DType::kF32});
  }
}

TEST_F(CudaBackwardTest, AttentionGivesTheSameBytesAgain) {
  const Scene scene{.heads = 8, .kv_heads = 2, .head_dim = 128, .documents = {260, 100}};
  const AttentionInputs in(scene);
  const Gradients once = Actual<BFloat16>(ops(), scene, in);
  const Gradients again = Actual<BFloat16>(ops(), scene, in);
  EXPECT_EQ(once.dq, again.dq);
  EXPECT_EQ(once.dk, again.dk);
  EXPECT_EQ(once.dv, again.dv);
}

TEST(CudaBackwardTilesTest, TheMostWorkComesFirst) {
  const std::vector<AttentionDocument> documents = {{0, 65}, {70, 0}, {80, 200}, {300, 64}};
  std::vector<std::pair<int64_t, int32_t>> order;
  for (const AttentionBackwardTile& tile : MakeAttentionBackwardTiles(documents)) {
    order.emplace_back(tile.row_begin, tile.tile);
  }
  const std::vector<std::pair<int64_t, int32_t>> expected = {{80, 0}, {80, 1}, {0, 0},  {80, 2},
                                                             {0, 1},  {80, 3}, {300, 0}};
  EXPECT_EQ(order, expected);
}

}  // namespace
}  // namespace swiftkv::kernels::cuda
