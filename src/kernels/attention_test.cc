// Attention and the K/V cache of every backend: against the reference, and its promise of batch invariance.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>

#include "base/parallel.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

struct Heads {
  int64_t heads, kv_heads, head_dim;
};

// One sequence of `tokens` with its K/V in a cache whose blocks lie scattered among others.
class Scene {
 public:
  Scene(const Backend& ops, const Heads& heads, int64_t tokens, DType dtype)
      : ops_(ops),
        heads_(heads),
        dtype_(dtype),
        q_(RandomFloats(tokens * heads.heads * heads.head_dim, 1)),
        k_(RandomFloats(tokens * heads.kv_heads * heads.head_dim, 2)),
        v_(RandomFloats(tokens * heads.kv_heads * heads.head_dim, 3)),
        positions_(static_cast<size_t>(tokens)) {
    std::iota(positions_.begin(), positions_.end(), 0);
    const int64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    for (int64_t b = 0; b < blocks; ++b) table_.push_back(static_cast<int32_t>((b * 7 + 3) % (blocks * 8 + 1)));
    const int64_t bytes = (blocks * 8 + 1) * ops.KvBlockBytes(heads.kv_heads, heads.head_dim, dtype);
    cache_ = std::move(*AlignedBuffer::Allocate(bytes, "test cache"));
    Write(0, tokens);
  }

  // K and V of the tokens [begin, end).
  void Write(int64_t begin, int64_t end) {
    std::vector<int64_t> slots;
    for (int64_t t = begin; t < end; ++t) {
      slots.push_back(table_[t / kBlockTokens] * kBlockTokens + t % kBlockTokens);
    }
    const int64_t kv_size = heads_.kv_heads * heads_.head_dim;
    ops_.WriteKv({.k = k_.data() + begin * kv_size,
                  .v = v_.data() + begin * kv_size,
                  .k_stride = kv_size,
                  .v_stride = kv_size,
                  .rows = end - begin,
                  .kv_heads = heads_.kv_heads,
                  .head_dim = heads_.head_dim,
                  .slots = slots.data(),
                  .cache = cache_.data(),
                  .cache_dtype = dtype_});
  }

  // Attention of the given tokens' rows, each run of `chunk` of them a sequence of its own.
  std::vector<float> Run(const std::vector<int32_t>& tokens, int64_t chunk, int64_t window) const {
    const int64_t size = heads_.heads * heads_.head_dim;
    std::vector<float> q;
    for (const int32_t t : tokens) q.insert(q.end(), q_.begin() + t * size, q_.begin() + (t + 1) * size);
    const auto rows = static_cast<int64_t>(tokens.size());
    std::vector<AttentionSequence> sequences;
    for (int64_t row = 0; row < rows; row += chunk) {
      sequences.push_back({.row_begin = row,
                           .rows = std::min(chunk, rows - row),
                           .positions = tokens.data() + row,
                           .block_table = table_.data()});
    }
    std::vector<float> out(q.size());
    ops_.Attention({.q = q.data(),
                    .q_stride = size,
                    .heads = heads_.heads,
                    .kv_heads = heads_.kv_heads,
                    .head_dim = heads_.head_dim,
                    .scale = 0.01f,
                    .window = window,
                    .cache = cache_.data(),
                    .cache_dtype = dtype_,
                    .sequences = sequences,
                    .out = out.data(),
                    .out_stride = size});
    return out;
  }

  const std::vector<int32_t>& all_tokens() const { return positions_; }
  const std::vector<float>& v() const { return v_; }

 private:
  const Backend& ops_;
  Heads heads_;
  DType dtype_;
  std::vector<float> q_, k_, v_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> table_;
  AlignedBuffer cache_;
};

// INT8 caches are read in one way where the head dimension is a multiple of 64, and in another elsewhere.
constexpr std::pair<DType, Heads> kTypesAndHeads[] = {{DType::kF32, {4, 2, 32}},
                                                      {DType::kBF16, {6, 2, 32}},
                                                      {DType::kI8, {6, 2, 32}},
                                                      {DType::kI8, {6, 2, 64}},
                                                      {DType::kI8, {2, 1, 128}}};

class AttentionTest : public testing::TestWithParam<const Backend*> {
 protected:
  const Backend& ops() const { return *GetParam(); }
  void TearDown() override { SetThreads(threads_); }

 private:
  int threads_ = Threads();
};

TEST_P(AttentionTest, MatchesReference) {
  for (const Heads& heads : {Heads{9, 3, 64}, Heads{4, 4, 32}, Heads{8, 1, 80}, Heads{7, 7, 96}, Heads{10, 2, 128},
                             Heads{2, 1, 8}, Heads{3, 1, 20}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
      for (const int64_t tokens : {1, 17, 40}) {
        const Scene expected_scene(RefBackend(), heads, tokens, dtype);
        const Scene scene(ops(), heads, tokens, dtype);
        for (const int64_t window : {0, 1, 5, 30}) {
          const std::vector<float> expected = expected_scene.Run(scene.all_tokens(), tokens, window);
          const std::vector<float> actual = scene.Run(scene.all_tokens(), tokens, window);
          // Scores reach about 100 and softmax turns their rounding into a relative error of its weights.
          const float largest = *std::max_element(scene.v().begin(), scene.v().end());
          const float tolerance = (dtype == DType::kF32 ? 1e-5f : 4e-3f) * largest;
          for (size_t i = 0; i < actual.size(); ++i) {
            // A weight that holds the scale of an INT8 V is rounded to bf16, and every value that it weighs with it.
            const float rounding = dtype == DType::kI8 ? std::fabs(expected[i]) * 0x1p-9f : 0;
            ASSERT_NEAR(actual[i], expected[i], tolerance + rounding)
                << "heads " << heads.heads << "/" << heads.kv_heads << " dim " << heads.head_dim << " window " << window
                << " element " << i;
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, MatchesReferenceAcrossPartitions) {
  const int64_t tokens = 2 * kAttentionPartition + 37;
  const std::vector<int32_t> rows = {0, 15, 511, 512, 513, 700, 1023, 1024, static_cast<int32_t>(tokens - 1)};
  for (const auto& [dtype, heads] : kTypesAndHeads) {
    const Scene expected_scene(RefBackend(), heads, tokens, dtype);
    const Scene scene(ops(), heads, tokens, dtype);
    const float largest = *std::max_element(scene.v().begin(), scene.v().end());
    const float tolerance = (dtype == DType::kF32 ? 1e-5f : 4e-3f) * largest;
    for (const int64_t window : {0, 100, 600}) {
      const std::vector<float> expected = expected_scene.Run(rows, 9, window);
      const std::vector<float> actual = scene.Run(rows, 9, window);
      for (size_t i = 0; i < actual.size(); ++i) {
        ASSERT_NEAR(actual[i], expected[i], tolerance) << window << " element " << i;
      }
    }
  }
}

TEST_P(AttentionTest, BytesDoNotDependOnChunksOrThreads) {
  const int64_t tokens = GetParam() == &RefBackend() ? 100 : kAttentionPartition * 2 + 100;
  for (const auto& [dtype, heads] : kTypesAndHeads) {
    const Scene scene(ops(), heads, tokens, dtype);
    for (const int64_t window : {0, 70, 530}) {
      SetThreads(1);
      const std::vector<float> whole = scene.Run(scene.all_tokens(), tokens, window);
      for (const int64_t chunk : {1, 7, 100, 513}) {
        SetThreads(2);
        ASSERT_EQ(scene.Run(scene.all_tokens(), chunk, window), whole) << "chunk " << chunk << " window " << window;
      }
      for (int threads = 1; threads <= 4; ++threads) {
        SetThreads(threads);
        // Rows that are not adjacent, and the last row alone (which splits its partitions over the threads).
        const std::vector<int32_t> rows = {3, 50, 51, 98, static_cast<int32_t>(tokens - 1)};
        const int64_t size = heads.heads * heads.head_dim;
        const std::vector<float> some = scene.Run(rows, 5, window);
        const std::vector<float> last = scene.Run({rows.back()}, 1, window);
        for (size_t r = 0; r < rows.size(); ++r) {
          ASSERT_EQ(std::memcmp(&some[r * size], &whole[rows[r] * size], static_cast<size_t>(size) * sizeof(float)), 0)
              << "row " << rows[r] << " threads " << threads;
        }
        ASSERT_EQ(std::memcmp(last.data(), &whole[rows.back() * size], static_cast<size_t>(size) * sizeof(float)), 0);
      }
    }
  }
}

TEST_P(AttentionTest, WritingRowByRowGivesTheSameCache) {
  const Heads heads{2, 2, 24};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    const Scene whole(ops(), heads, 50, dtype);
    Scene pieces(ops(), heads, 50, dtype);
    for (int64_t t = 49; t >= 0; --t) pieces.Write(t, t + 1);
    EXPECT_EQ(whole.Run(whole.all_tokens(), 50, 0), pieces.Run(whole.all_tokens(), 50, 0));
  }
}

TEST_P(AttentionTest, LaterSlotsAreNotSeen) {
  const Heads heads{2, 1, 16};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    const Scene alone(ops(), heads, 5, dtype);
    const Scene longer(ops(), heads, 16, dtype);  // the same first five tokens, and eleven more in the block
    EXPECT_EQ(alone.Run(alone.all_tokens(), 5, 0), longer.Run(alone.all_tokens(), 5, 0));
  }
}

INSTANTIATE_TEST_SUITE_P(AllBackends, AttentionTest, testing::ValuesIn(AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

}  // namespace
}  // namespace swiftkv::kernels
