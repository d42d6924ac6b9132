// Attention on the GPU against double precision on the host, which takes q, K and V rounded as the kernels have them.
// What no row attends to is NaN: cache slots, queries of rows between the sequences'.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "base/bfloat16.h"
#include "kernels/cuda/attention_hopper.h"
#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {
namespace {

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : size_(values.size()) {
    EXPECT_EQ(cudaMalloc(&data_, std::max<size_t>(1, size_) * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return static_cast<T*>(data_); }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }

 private:
  size_t size_;
  void* data_ = nullptr;
};

struct Heads {
  int64_t heads, kv_heads, head_dim;
};

struct Options {
  Heads heads;
  DType cache_dtype = DType::kBF16;
  DType out_dtype = DType::kF32;
  int64_t window = 0;
  bool decode = false;

  bool tensor_cores() const { return cache_dtype != DType::kF32 && (heads.head_dim == 64 || heads.head_dim == 128); }
};

std::ostream& operator<<(std::ostream& os, const Options& o) {
  return os << (o.decode ? "decode " : "prefill ") << o.heads.heads << "/" << o.heads.kv_heads << " heads of "
            << o.heads.head_dim << ", cache " << Name(o.cache_dtype) << ", out " << Name(o.out_dtype) << ", window "
            << o.window;
}

bool IsHopper() {
  int device = 0;
  int major = 0;
  int minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 &&
         minor == 0;
}

int64_t CacheBytes(DType dtype) { return dtype == DType::kF32 ? 4 : dtype == DType::kBF16 ? 2 : 1; }

float E4M3ToFloat(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const float magnitude = exponent == 0 ? static_cast<float>(code & 7) * 0x1p-9f
                                        : std::ldexp(static_cast<float>(8 + (code & 7)), exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

// Random values of a cache's type: as floats, and as they are stored.
float RandomValue(std::mt19937& engine, DType dtype, std::byte* stored) {
  if (dtype == DType::kF8E4M3) {
    // All finite codes are as likely, but for those above 4 in magnitude: else one token would have all weight.
    const auto code = static_cast<uint8_t>(engine() % 0x48 | (engine() & 0x80));
    std::memcpy(stored, &code, 1);
    return E4M3ToFloat(code);
  }
  const float value = std::normal_distribution<float>()(engine);
  if (dtype == DType::kF32) {
    std::memcpy(stored, &value, 4);
    return value;
  }
  const BFloat16 rounded = ToBFloat16(value);
  std::memcpy(stored, &rounded, 2);
  return ToFloat(rounded);
}

// Sequences, each given by its rows' positions, with a cache for all, and attention over it here and there.
class Scene {
 public:
  static constexpr float kUnwritten = 12345;

  Scene(const Options& options, std::vector<std::vector<int32_t>> positions)
      : options_(options), positions_(std::move(positions)), engine_(17) {
    const Heads& heads = options.heads;
    int64_t rows = 1;
    int32_t blocks = 3;
    for (const std::vector<int32_t>& p : positions_) {
      row_begins_.push_back(rows);
      rows += static_cast<int64_t>(p.size()) + 1;  // a row that belongs to no sequence
      if (!p.empty()) blocks += p.back() / kBlockTokens + 1;
    }
    q_stride_ = heads.heads * heads.head_dim + 8;
    out_stride_ = heads.heads * heads.head_dim + 16;
    q_.assign(rows * q_stride_, std::numeric_limits<float>::quiet_NaN());
    cache_.assign(blocks * BlockBytes(), std::byte{0xff});  // NaN in every type
    out_.resize(rows * out_stride_ * OutBytes());
    log_sum_exp_.resize(rows * heads.heads);
    std::vector<int32_t> free(blocks);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), engine_);
    for (size_t s = 0; s < positions_.size(); ++s) AddSequence(s, free);
  }

  // Runs the kernel and compares; of prefill the one for Hopper, too, where it applies.
  void Check() {
    ASSERT_NO_FATAL_FAILURE(RunAndCompare(false));
    if (!options_.decode && options_.cache_dtype == DType::kBF16 && options_.tensor_cores() && IsHopper()) {
      ASSERT_NO_FATAL_FAILURE(RunAndCompare(true)) << "with the kernel for Hopper";
    }
  }

 private:
  void RunAndCompare(bool hopper) {
    hopper_ = hopper;
    std::fill(out_.begin(), out_.end(), std::byte{0x5a});
    std::fill(log_sum_exp_.begin(), log_sum_exp_.end(), kUnwritten);
    Run();
    std::vector<bool> written(out_.size() / (out_stride_ * OutBytes()));
    for (size_t s = 0; s < positions_.size(); ++s) {
      for (size_t r = 0; r < positions_[s].size(); ++r) {
        written[row_begins_[s] + r] = true;
        for (int64_t head = 0; head < options_.heads.heads; ++head) ASSERT_NO_FATAL_FAILURE(CheckOne(s, r, head));
      }
    }
    const int64_t row_bytes = out_stride_ * OutBytes();
    for (size_t row = 0; row < written.size(); ++row) {
      const int64_t begin = written[row] ? options_.heads.heads * options_.heads.head_dim * OutBytes() : 0;
      for (int64_t i = begin; i < row_bytes; ++i) {
        ASSERT_EQ(out_[row * row_bytes + i], std::byte{0x5a}) << options_ << " wrote byte " << i << " of row " << row;
      }
      for (int64_t head = 0; head < options_.heads.heads && !written[row]; ++head) {
        ASSERT_EQ(log_sum_exp_[row * options_.heads.heads + head], kUnwritten) << options_ << ", of row " << row;
      }
    }
  }

  struct Tokens {
    std::vector<float> k, v;  // [tokens, kv_heads, head_dim]
    std::vector<int32_t> table;
  };

  int64_t OutBytes() const { return options_.out_dtype == DType::kBF16 ? 2 : 4; }
  int64_t HalfBytes() const {
    return options_.heads.kv_heads * kBlockTokens * options_.heads.head_dim * CacheBytes(options_.cache_dtype);
  }
  int64_t BlockBytes() const { return 2 * HalfBytes(); }
  int64_t First(int64_t position) const {
    return options_.window > 0 ? std::max<int64_t>(0, position - options_.window + 1) : 0;
  }

  void AddSequence(size_t s, std::vector<int32_t>& free) {
    const Heads& heads = options_.heads;
    const int64_t size = heads.heads * heads.head_dim;
    std::normal_distribution<float> normal(0, 2);
    for (size_t r = 0; r < positions_[s].size(); ++r) {
      float* row = &q_[(row_begins_[s] + r) * q_stride_];
      std::generate(row, row + size, [&] { return normal(engine_); });
    }
    Tokens& tokens = tokens_.emplace_back();
    if (positions_[s].empty()) return;
    const int64_t count = positions_[s].back() + 1;
    tokens.k.resize(count * heads.kv_heads * heads.head_dim);
    tokens.v.resize(tokens.k.size());
    for (int64_t b = 0; b * kBlockTokens < count; ++b) {
      tokens.table.push_back(free.back());
      free.pop_back();
    }
    for (int64_t t = First(positions_[s].front()); t < count; ++t) WriteToken(t, tokens);
  }

  void WriteToken(int64_t t, Tokens& tokens) {
    const Heads& heads = options_.heads;
    const int64_t element = CacheBytes(options_.cache_dtype);
    for (int64_t head = 0; head < heads.kv_heads; ++head) {
      std::byte* k = &cache_[tokens.table[t / kBlockTokens] * BlockBytes() +
                             (head * kBlockTokens + t % kBlockTokens) * heads.head_dim * element];
      for (int64_t i = 0; i < heads.head_dim; ++i) {
        const int64_t index = (t * heads.kv_heads + head) * heads.head_dim + i;
        tokens.k[index] = RandomValue(engine_, options_.cache_dtype, k + i * element);
        tokens.v[index] = RandomValue(engine_, options_.cache_dtype, k + HalfBytes() + i * element);
      }
    }
  }

  void Run() {
    const DeviceArray<float> q(q_);
    const DeviceArray<std::byte> cache(cache_);
    const DeviceArray<std::byte> out(out_);
    const DeviceArray<float> log_sum_exp(log_sum_exp_);
    std::vector<int32_t> numbers;  // of each sequence its positions, then its block table
    for (size_t s = 0; s < positions_.size(); ++s) {
      numbers.insert(numbers.end(), positions_[s].begin(), positions_[s].end());
      numbers.insert(numbers.end(), tokens_[s].table.begin(), tokens_[s].table.end());
    }
    const DeviceArray<int32_t> device_numbers(numbers);
    std::vector<AttentionSequence> sequences;
    const int32_t* next = device_numbers.data();
    size_t max_rows = 0;
    for (size_t s = 0; s < positions_.size(); ++s) {
      const size_t rows = positions_[s].size();
      max_rows = std::max(max_rows, rows);
      sequences.push_back({.row_begin = row_begins_[s],
                           .rows = static_cast<int64_t>(rows),
                           .positions = next,
                           .block_table = next + rows});
      next += rows + tokens_[s].table.size();
    }
    const DeviceArray<AttentionSequence> device_sequences(sequences);
    const Heads& heads = options_.heads;
    const auto count = static_cast<int64_t>(sequences.size());
    const int64_t workspace_bytes = DecodeWorkspaceBytes(count, heads.heads, heads.kv_heads, heads.head_dim);
    const DeviceArray<std::byte> workspace(std::vector<std::byte>(workspace_bytes, std::byte{0xff}));
    const AttentionLaunch args{.q = q.data(),
                               .q_stride = q_stride_,
                               .heads = heads.heads,
                               .kv_heads = heads.kv_heads,
                               .head_dim = heads.head_dim,
                               .scale = Scale(),
                               .window = options_.window,
                               .cache = cache.data(),
                               .cache_dtype = options_.cache_dtype,
                               .block_bytes = BlockBytes(),
                               .sequences = device_sequences.data(),
                               .count = count,
                               .max_rows = static_cast<int64_t>(max_rows),
                               .out = out.data(),
                               .out_stride = out_stride_,
                               .out_dtype = options_.out_dtype,
                               .log_sum_exp = log_sum_exp.data(),
                               .workspace = workspace.data()};
    Launch(args);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << options_ << ": " << cudaGetErrorString(cudaGetLastError());
    ASSERT_EQ(cudaGetLastError(), cudaSuccess) << options_;
    out_ = out.Read();
    log_sum_exp_ = log_sum_exp.Read();
  }

  void Launch(const AttentionLaunch& args) const {
    ForceMmaAttention(!hopper_);
    if (options_.decode) {
      DecodeAttention(args, nullptr);
    } else if (hopper_) {
      ASSERT_TRUE(HopperPrefillAttention(args, nullptr));
    } else {
      PrefillAttention(args, nullptr);
    }
  }

  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(options_.heads.head_dim)); }

  struct Result {
    std::vector<double> out;
    double log_sum_exp;
  };

  Result Expected(size_t s, size_t r, int64_t head) const {
    const Heads& heads = options_.heads;
    const int64_t kv_head = head / (heads.heads / heads.kv_heads);
    const int64_t position = positions_[s][r];
    std::vector<float> q(heads.head_dim);
    for (int64_t i = 0; i < heads.head_dim; ++i) {
      q[i] = q_[(row_begins_[s] + r) * q_stride_ + head * heads.head_dim + i];
      if (options_.cache_dtype != DType::kF32) q[i] = ToFloat(ToBFloat16(q[i]));
    }
    const int64_t first = First(position);
    std::vector<double> weights;
    for (int64_t t = first; t <= position; ++t) {
      const float* k = &tokens_[s].k[(t * heads.kv_heads + kv_head) * heads.head_dim];
      weights.push_back(
          std::inner_product(q.begin(), q.end(), k, 0.0, std::plus<>(), [](double a, double b) { return a * b; }) *
          Scale());
    }
    const double max = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    std::vector<double> out(heads.head_dim);
    for (int64_t t = first; t <= position; ++t) {
      const double weight = std::exp(weights[t - first] - max);
      const float* v = &tokens_[s].v[(t * heads.kv_heads + kv_head) * heads.head_dim];
      sum += weight;
      for (int64_t i = 0; i < heads.head_dim; ++i) out[i] += weight * v[i];
    }
    for (double& x : out) x /= sum;
    return {std::move(out), max + std::log(sum)};
  }

  // The distance of a head's vector from what it should be, by its length: one token too many or too few is seen.
  // Weights are rounded to bf16 on tensor cores, results to their type.
  void CheckOne(size_t s, size_t r, int64_t head) const {
    const int64_t head_dim = options_.heads.head_dim;
    const auto [expected, log_sum_exp] = Expected(s, r, head);
    ASSERT_NEAR(log_sum_exp_[(row_begins_[s] + r) * options_.heads.heads + head], log_sum_exp,
                (options_.tensor_cores() ? 1e-4 : 1e-5) * (1 + std::abs(log_sum_exp)))
        << options_ << ": sequence " << s << " row " << r << " position " << positions_[s][r] << " head " << head;
    double error = 0;
    double length = 0;
    for (int64_t i = 0; i < head_dim; ++i) {
      const int64_t index = (row_begins_[s] + static_cast<int64_t>(r)) * out_stride_ + head * head_dim + i;
      const double actual = options_.out_dtype == DType::kBF16
                                ? ToFloat(reinterpret_cast<const BFloat16*>(out_.data())[index])
                                : reinterpret_cast<const float*>(out_.data())[index];
      error += (actual - expected[i]) * (actual - expected[i]);
      length += expected[i] * expected[i];
    }
    const double tolerance = (options_.tensor_cores() ? 4e-3 : 1e-5) + (options_.out_dtype == DType::kBF16 ? 2e-3 : 0);
    ASSERT_LE(std::sqrt(error), tolerance * std::sqrt(length))
        << options_ << ": sequence " << s << " row " << r << " position " << positions_[s][r] << " head " << head;
  }

  Options options_;
  bool hopper_ = false;
  std::vector<std::vector<int32_t>> positions_;  // [sequences][rows]
  std::mt19937 engine_;
  std::vector<int64_t> row_begins_;
  std::vector<Tokens> tokens_;
  int64_t q_stride_ = 0;
  int64_t out_stride_ = 0;
  std::vector<float> q_;
  std::vector<std::byte> cache_;
  std::vector<std::byte> out_;
  std::vector<float> log_sum_exp_;  // [rows, heads]
};

std::vector<int32_t> Range(int32_t begin, int32_t rows, int32_t step = 1) {
  std::vector<int32_t> positions(rows);
  for (int32_t r = 0; r < rows; ++r) positions[r] = begin + r * step;
  return positions;
}

class CudaAttentionTest : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "there is no CUDA device";
  }
};

// Tensor cores: each group of heads that differs in how it fills a tile of rows, and both types of cache.
constexpr Heads kTensorHeads[] = {{2, 2, 128}, {6, 2, 64}, {4, 1, 128}, {8, 1, 64}, {16, 1, 128}, {3, 1, 128}};

TEST_F(CudaAttentionTest, PrefillOfSequencesOfAnyLength) {
  for (const Heads& heads : kTensorHeads) {
    for (const DType cache_dtype : {DType::kBF16, DType::kF8E4M3}) {
      Scene({.heads = heads, .cache_dtype = cache_dtype},
            {Range(0, 1), Range(0, 17), Range(0, 64), {}, Range(0, 133), Range(63, 2), Range(300, 1)})
          .Check();
    }
  }
}

TEST_F(CudaAttentionTest, PrefillOfChunks) {
  for (const DType cache_dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const DType out_dtype : {DType::kBF16, DType::kF32}) {
      Scene({.heads = {4, 1, 128}, .cache_dtype = cache_dtype, .out_dtype = out_dtype},
            {Range(500, 200), Range(127, 66), Range(640, 3)})
          .Check();
      Scene({.heads = {3, 3, 64}, .cache_dtype = cache_dtype, .out_dtype = out_dtype}, {Range(250, 150)}).Check();
    }
  }
}

TEST_F(CudaAttentionTest, PrefillOfPositionsThatAreNotAdjacent) {
  for (const Heads& heads : {Heads{2, 2, 128}, Heads{8, 2, 64}}) {
    for (const int64_t window : {0, 100}) {
      Scene({.heads = heads, .window = window}, {Range(3, 60, 7), {0, 15, 16, 63, 64, 65, 500}}).Check();
    }
  }
}

TEST_F(CudaAttentionTest, PrefillWithWindow) {
  for (const Heads& heads : {Heads{2, 2, 64}, Heads{8, 2, 128}}) {
    for (const DType cache_dtype : {DType::kBF16, DType::kF8E4M3}) {
      for (const int64_t window : {1, 5, 64, 100}) {
        Scene({.heads = heads, .cache_dtype = cache_dtype, .window = window},
              {Range(0, 140), Range(200, 70), Range(319, 1)})
            .Check();
      }
    }
  }
}

TEST_F(CudaAttentionTest, PrefillInPlainFloat) {
  for (const Heads& heads :
       {Heads{2, 1, 8}, Heads{3, 1, 20}, Heads{8, 2, 80}, Heads{4, 4, 96}, Heads{4, 1, 128}, Heads{2, 1, 256}}) {
    for (const DType cache_dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
      if (cache_dtype != DType::kF32 && heads.head_dim == 128) continue;
      for (const int64_t window : {0, 5, 100}) {
        Scene({.heads = heads, .cache_dtype = cache_dtype, .window = window},
              {Range(0, 33), Range(150, 5), {}, {0, 7, 260}})
            .Check();
      }
    }
  }
  Scene({.heads = {2, 1, 80}, .cache_dtype = DType::kF32, .out_dtype = DType::kBF16}, {Range(0, 20)}).Check();
}

TEST_F(CudaAttentionTest, DecodeOfBatches) {
  for (const Heads& heads : kTensorHeads) {
    for (const DType cache_dtype : {DType::kBF16, DType::kF8E4M3}) {
      for (const DType out_dtype : {DType::kBF16, DType::kF32}) {
        const Options options{.heads = heads, .cache_dtype = cache_dtype, .out_dtype = out_dtype, .decode = true};
        Scene(options, {{0}}).Check();
        Scene(options, {{700}, {}, {15}, {16}, {63}, {64}, {1}}).Check();
      }
    }
  }
}

TEST_F(CudaAttentionTest, DecodeOfLongContexts) {
  for (const DType cache_dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const int64_t head_dim : {64, 128}) {
      Scene({.heads = {8, 2, head_dim}, .cache_dtype = cache_dtype, .decode = true}, {{2999}, {1300}}).Check();
      // More heads of a group than a fragment has rows.
      Scene({.heads = {20, 1, head_dim}, .cache_dtype = cache_dtype, .decode = true}, {{999}}).Check();
    }
  }
}

// So many blocks that each sequence has one split alone.
TEST_F(CudaAttentionTest, DecodeOfLargeBatches) {
  std::vector<std::vector<int32_t>> positions;
  for (int32_t s = 0; s < 40; ++s) positions.push_back(s % 7 == 3 ? std::vector<int32_t>{} : Range(s * 13, 1));
  for (const DType cache_dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const DType out_dtype : {DType::kBF16, DType::kF32}) {
      Scene({.heads = {14, 14, 64}, .cache_dtype = cache_dtype, .out_dtype = out_dtype, .decode = true}, positions)
          .Check();
    }
    Scene({.heads = {4, 2, 128}, .cache_dtype = cache_dtype, .decode = true}, positions).Check();
  }
}

TEST_F(CudaAttentionTest, DecodeWithWindow) {
  for (const DType cache_dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const int64_t window : {1, 5, 64, 100}) {
      Scene({.heads = {4, 2, 128}, .cache_dtype = cache_dtype, .window = window, .decode = true},
            {{0}, {4}, {63}, {170}, {800}})
          .Check();
    }
  }
}

TEST_F(CudaAttentionTest, DecodeInPlainFloat) {
  for (const Heads& heads : {Heads{2, 1, 8}, Heads{3, 1, 20}, Heads{8, 2, 80}, Heads{4, 4, 96}, Heads{4, 1, 128}}) {
    for (const int64_t window : {0, 100}) {
      Scene({.heads = heads, .cache_dtype = DType::kF32, .window = window, .decode = true}, {{1500}, {}, {0}, {90}})
          .Check();
    }
  }
}

}  // namespace
}  // namespace swiftkv::kernels::cuda
