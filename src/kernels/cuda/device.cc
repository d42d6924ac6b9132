#include "kernels/cuda/device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {

Result<std::unique_ptr<Device>> Device::Open() {
  constexpr int kLeastCapability = 8;  // bf16 tensor cores and asynchronous copies
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
    // Without a driver its version counts as too old.
    const bool is_none = error == cudaSuccess || error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver;
    return MakeError(is_none ? ErrorCode::kNotFound : ErrorCode::kInternal, "no CUDA device: {}",
                     error == cudaSuccess ? "none is visible" : cudaGetErrorString(error));
  }
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, 0); error != cudaSuccess) {
    return MakeError(ErrorCode::kInternal, "no CUDA device: {}", cudaGetErrorString(error));
  }
  if (properties.major < kLeastCapability) {
    return NotFound("{}: compute capability {}.{}; it must be {}.0 or above", properties.name, properties.major,
                    properties.minor, kLeastCapability);
  }
  std::unique_ptr<Device> device(new Device(properties));
  SWIFTKV_RETURN_IF_ERROR(device->Init());
  if (const cudaError_t error = FindKernels(); error != cudaSuccess) {
    cudaGetLastError();  // it is told here
    return NotFound(
        "{}: this swiftkv has no kernels for compute capability {}.{} ({}); build it with "
        "-DSWIFTKV_CUDA_ARCHITECTURES={}{}-real",
        properties.name, properties.major, properties.minor, cudaGetErrorString(error), properties.major,
        properties.minor);
  }
  return device;
}

Status Device::Init() {
  Check(cudaSetDevice(0), "device");
  Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  for (Stage& stage : stages_) {
    Check(cudaMallocHost(reinterpret_cast<void**>(&stage.data), kStageBytes), "pinned memory");
    Check(cudaEventCreateWithFlags(&stage.copied, cudaEventDisableTiming), "event");
  }
  Check(cudaMallocHost(reinterpret_cast<void**>(&landing_), kStageBytes), "pinned memory");
  return TakeError();
}

Device::~Device() {
  cudaStreamSynchronize(stream_);
  for (const Stage& stage : stages_) {
    cudaFreeHost(stage.data);
    cudaEventDestroy(stage.copied);
  }
  cudaFreeHost(landing_);
  cudaStreamDestroy(stream_);
}

void Device::Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const ErrorCode code = error == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kInternal;
  Fail({code, fmt::format("CUDA: {}: {}", what, cudaGetErrorString(error))});
}

void Device::Fail(Error error) {
  const std::lock_guard lock(mutex_);
  if (error_) error_ = tl::unexpected<Error>(std::move(error));
}

Status Device::TakeError() {
  Check(cudaGetLastError(), "kernel");
  const std::lock_guard lock(mutex_);
  return std::exchange(error_, Ok());
}

Result<std::byte*> Device::Allocate(int64_t bytes, const char* what) {
  void* data = nullptr;
  if (const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes)); error != cudaSuccess) {
    cudaGetLastError();  // it is told here
    return ResourceExhausted("{}: the GPU has no memory for {} MiB ({})", what, bytes >> 20, cudaGetErrorString(error));
  }
  Check(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), stream_), what);
  return static_cast<std::byte*>(data);
}

void Device::Free(std::byte* data, int64_t /*bytes*/) { Check(cudaFree(data), "free"); }

void Device::Write(std::byte* to, const void* from, int64_t bytes) {
  for (int64_t done = 0; done < bytes;) {
    const int64_t count = std::min(bytes - done, kStageBytes);
    cudaError_t error = cudaSuccess;
    {
      const std::lock_guard lock(mutex_);
      Stage& stage = stages_[next_stage_];
      next_stage_ = (next_stage_ + 1) % kStages;
      error = cudaEventSynchronize(stage.copied);
      std::memcpy(stage.data, static_cast<const std::byte*>(from) + done, static_cast<size_t>(count));
      if (error == cudaSuccess) {
        error = cudaMemcpyAsync(to + done, stage.data, static_cast<size_t>(count), cudaMemcpyHostToDevice, stream_);
      }
      if (error == cudaSuccess) error = cudaEventRecord(stage.copied, stream_);
    }
    Check(error, "copy to the device");
    done += count;
  }
}

void Device::Read(void* to, const std::byte* from, int64_t bytes) {
  for (int64_t done = 0; done < bytes;) {
    const int64_t count = std::min(bytes - done, kStageBytes);
    cudaError_t error = cudaSuccess;
    {
      const std::lock_guard lock(mutex_);
      error = cudaMemcpyAsync(landing_, from + done, static_cast<size_t>(count), cudaMemcpyDeviceToHost, stream_);
      if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
      if (error == cudaSuccess) std::memcpy(static_cast<std::byte*>(to) + done, landing_, static_cast<size_t>(count));
    }
    Check(error, "copy from the device");
    done += count;
  }
}

void Device::Zero(std::byte* to, int64_t bytes) {
  Check(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream_), "zero");
}

void Device::Copy(std::byte* to, const std::byte* from, int64_t bytes) {
  Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_), "copy");
}

int64_t Device::available_bytes() {
  size_t available = 0;
  size_t total = 0;
  Check(cudaMemGetInfo(&available, &total), "memory");
  return static_cast<int64_t>(available);
}

}  // namespace swiftkv::kernels::cuda
