// Device memory of tests and benchmarks, which end the process when the device fails.
//
//   const DeviceArray<float> x(std::vector<float>{1, 2, 3});
//   Launch(x.get());
//   const std::vector<float> result = x.ToHost();  // waits for the device
#ifndef SWIFTKV_KERNELS_CUDA_TEST_BUFFER_H_
#define SWIFTKV_KERNELS_CUDA_TEST_BUFFER_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace swiftkv::kernels::cuda {

inline bool HasDevice() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

inline void CheckCuda(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::abort();
}

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : size_(values.size()) {
    void* data = nullptr;
    CheckCuda(cudaMalloc(&data, size_ * sizeof(T)));
    data_ = static_cast<T*>(data);
    CheckCuda(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { CheckCuda(cudaFree(data_)); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }

  std::vector<T> ToHost() const {
    CheckCuda(cudaGetLastError());
    CheckCuda(cudaDeviceSynchronize());
    std::vector<T> values(size_);
    CheckCuda(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_TEST_BUFFER_H_
