// What the trainer packs and writes where a device's kernels read it, against the same from the host.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

class CudaPackingTest : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    const Result<const Backend*> backend = CudaBackend();
    if (!backend) GTEST_SKIP() << backend.error().message;
    cuda_ = *backend;
  }

  template <class T>
  AlignedBuffer OnDevice(const std::vector<T>& values) const {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    AlignedBuffer buffer = *AlignedBuffer::Allocate(bytes, "test", cuda_->memory());
    cuda_->memory().Write(buffer.data(), values.data(), bytes);
    return buffer;
  }
  std::vector<std::byte> Bytes(const AlignedBuffer& buffer) const {
    std::vector<std::byte> bytes(static_cast<size_t>(buffer.bytes()));
    cuda_->memory().Read(bytes.data(), buffer.data(), buffer.bytes());
    return bytes;
  }
  // [n, k] from the host's values.
  PackedMatrix Packed(const std::vector<float>& values, int64_t n, int64_t k) const {
    PackedMatrix w = *cuda_->AllocatePacked(n, k, GetParam());
    cuda_->PackRows(values.data(), 0, n, &w);
    return w;
  }

  const Backend* cuda_ = nullptr;
};

TEST_P(CudaPackingTest, MastersBecomeWhatTheHostPacks) {
  const int64_t n = 130, k = 72;
  const std::vector<float> values = RandomFloats(n * k, 1);
  const AlignedBuffer masters = OnDevice(values);
  PackedMatrix w = *cuda_->AllocatePacked(n, k, GetParam());
  cuda_->PackFromMemory(masters.as<float>(), 0, 64, &w);
  cuda_->PackFromMemory(masters.as<float>() + 64 * k, 64, n - 64, &w);
  EXPECT_EQ(Bytes(w.data), Bytes(Packed(values, n, k).data));
}

TEST_P(CudaPackingTest, TransposesAreWhatTheHostPacks) {
  const int64_t n = 5000, k = 40;  // more rows than are rounded at a time
  const std::vector<float> values = RandomFloats(n * k, 2);
  std::vector<float> transposed(values.size());
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t column = 0; column < k; ++column) {
      transposed[static_cast<size_t>(column * n + row)] = values[static_cast<size_t>(row * k + column)];
    }
  }
  const std::vector<std::byte> expected = Bytes(Packed(transposed, k, n).data);
  const AlignedBuffer masters = OnDevice(values);
  PackedMatrix from_masters = *cuda_->AllocatePacked(k, n, GetParam());
  cuda_->PackTransposed(masters.data(), DType::kF32, n, k, &from_masters);
  EXPECT_EQ(Bytes(from_masters.data), expected);
  PackedMatrix from_packed = *cuda_->AllocatePacked(k, n, GetParam());
  ASSERT_TRUE(cuda_->TransposePacked(Packed(values, n, k), &from_packed).has_value());
  EXPECT_EQ(Bytes(from_packed.data), expected);
}

// WriteKv is RotateAndStore at position 0, which turns nothing.
TEST_P(CudaPackingTest, WrittenKeysAreNotRotated) {
  const int64_t rows = 5, kv_heads = 2, head_dim = 64, stride = 2 * kv_heads * head_dim;
  const AlignedBuffer kv = OnDevice(RandomFloats(rows * stride, 3));
  const AlignedBuffer slots = OnDevice(std::vector<int64_t>{3, 20, 0, 31, 7});
  const AlignedBuffer positions = OnDevice(std::vector<int32_t>(rows, 0));
  const AlignedBuffer cos = OnDevice(std::vector<float>(head_dim / 2, 1.0f));
  const AlignedBuffer sin = OnDevice(std::vector<float>(head_dim / 2, 0.0f));
  const std::vector<std::byte> empty(static_cast<size_t>(2 * cuda_->KvBlockBytes(kv_heads, head_dim, GetParam())));
  AlignedBuffer written = OnDevice(empty);
  AlignedBuffer expected = OnDevice(empty);
  KvWriteArgs args{.k = kv.as<float>(),
                   .v = kv.as<float>() + kv_heads * head_dim,
                   .k_stride = stride,
                   .v_stride = stride,
                   .rows = rows,
                   .kv_heads = kv_heads,
                   .head_dim = head_dim,
                   .slots = slots.as<int64_t>(),
                   .cache = written.data(),
                   .cache_dtype = GetParam()};
  cuda_->WriteKv(args);
  args.cache = expected.data();
  const RopeArgs rope{.x = const_cast<float*>(args.k),
                      .x_stride = stride,
                      .rows = rows,
                      .heads = kv_heads,
                      .head_dim = head_dim,
                      .positions = positions.as<int32_t>(),
                      .cos = cos.as<float>(),
                      .sin = sin.as<float>()};
  cuda_->RotateAndStore({.q = {}, .k = rope, .kv = args});
  EXPECT_EQ(Bytes(written), Bytes(expected));
  EXPECT_NE(Bytes(written), empty);
}

INSTANTIATE_TEST_SUITE_P(Types, CudaPackingTest, testing::Values(DType::kF32, DType::kBF16));

}  // namespace
}  // namespace swiftkv::kernels
