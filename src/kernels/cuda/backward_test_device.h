// What the tests of the backward operations on the GPU share: a device, arrays on it, comparisons.
//
//   const Array<float> x(Floats{1, 2, 3});
//   ops().Round({.x = x.get(), ...});
//   const Floats result = x.Read();  // waits for the device
#ifndef SWIFTKV_KERNELS_CUDA_BACKWARD_TEST_DEVICE_H_
#define SWIFTKV_KERNELS_CUDA_BACKWARD_TEST_DEVICE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/bfloat16.h"
#include "kernels/cuda/backward_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels::cuda {

using Floats = std::vector<float>;
using BFloat16s = std::vector<BFloat16>;

inline constexpr float kPoison = 12345;

// The device, opened once; null where there is none, and then why.
struct Opened {
  std::unique_ptr<Device> device;
  std::string problem;
};
inline const Opened& OpenedDevice() {
  // Never destroyed: CUDA itself may be gone when that would happen.
  static const Opened& opened = *[] {
    Result<std::unique_ptr<Device>> device = Device::Open();
    return device ? new Opened{std::move(*device), ""} : new Opened{nullptr, device.error().message};
  }();
  return opened;
}
inline Device& TheDevice() { return *OpenedDevice().device; }

// An array in device memory, written and read in order with the operations.
template <typename T>
class Array {
 public:
  explicit Array(const std::vector<T>& values) : size_(values.size()) {
    const auto bytes = static_cast<int64_t>(size_ * sizeof(T));
    Result<AlignedBuffer> buffer = AlignedBuffer::Allocate(std::max<int64_t>(bytes, 1), "test", TheDevice());
    if (!buffer) std::abort();
    buffer_ = std::move(*buffer);
    TheDevice().Write(buffer_.data(), values.data(), bytes);
  }
  T* get() const { return const_cast<T*>(buffer_.as<T>()); }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    TheDevice().Read(values.data(), buffer_.data(), static_cast<int64_t>(size_ * sizeof(T)));
    const Status status = TheDevice().TakeError();
    EXPECT_TRUE(status) << status.error().message;
    return values;
  }

 private:
  size_t size_;
  AlignedBuffer buffer_;
};

class CudaBackwardTest : public testing::Test {
 protected:
  void SetUp() override {
    if (OpenedDevice().device == nullptr) GTEST_SKIP() << OpenedDevice().problem;
    ops_ = std::make_unique<CudaBackwardOps>(&TheDevice());
  }
  const CudaBackwardOps& ops() const { return *ops_; }
  static const BackwardOps& reference() { return RefBackend().backward(); }

 private:
  std::unique_ptr<CudaBackwardOps> ops_;
};

template <typename T>
std::vector<T> As(const Floats& values) {
  if constexpr (std::is_same_v<T, float>) {
    return values;
  } else {
    return ToBFloat16(values);
  }
}
inline Floats AsFloats(const Floats& values) { return values; }
inline Floats AsFloats(const BFloat16s& values) {
  Floats out(values.size());
  std::transform(values.begin(), values.end(), out.begin(), [](BFloat16 value) { return ToFloat(value); });
  return out;
}
template <typename T>
inline constexpr DType kDTypeOf = std::is_same_v<T, float> ? DType::kF32 : DType::kBF16;

inline Floats Normal(int64_t size, unsigned seed, float scale = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats values(static_cast<size_t>(size));
  std::generate(values.begin(), values.end(), [&] { return normal(engine); });
  return values;
}

// Of the whole, by its length.
inline void ExpectClose(const Floats& actual, const Floats& expected, double relative, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  double error = 0;
  double length = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = static_cast<double>(actual[i]) - expected[i];
    error += difference * difference;
    length += static_cast<double>(expected[i]) * expected[i];
  }
  EXPECT_LE(std::sqrt(error), relative * std::sqrt(length)) << what;
}

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_BACKWARD_TEST_DEVICE_H_
