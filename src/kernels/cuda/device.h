// The GPU that the CUDA twin runs on: its stream, its memory, and the first thing that went wrong there.
#ifndef SWIFTKV_KERNELS_CUDA_DEVICE_H_
#define SWIFTKV_KERNELS_CUDA_DEVICE_H_

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <mutex>
#include <string>

#include "base/memory_space.h"

namespace swiftkv::kernels::cuda {

// Everything runs in order on one stream; nothing here waits for it but Read, and Write where its staging memory is
// still on its way. Write and Read may be called from several threads.
class Device final : public MemorySpace {
 public:
  // Errors: kNotFound (there is no device of compute capability 8.0 or above, no driver for this CUDA, or the program
  // has no kernels for the device), kInternal (one that can't be used).
  static Result<std::unique_ptr<Device>> Open();
  ~Device() override;

  bool is_host() const override { return false; }
  Result<std::byte*> Allocate(int64_t bytes, const char* what) override;
  void Free(std::byte* data, int64_t bytes) override;
  void Write(std::byte* to, const void* from, int64_t bytes) override;
  void Read(void* to, const std::byte* from, int64_t bytes) override;
  void Zero(std::byte* to, int64_t bytes) override;
  void Copy(std::byte* to, const std::byte* from, int64_t bytes) override;
  int64_t available_bytes() override;

  cudaStream_t stream() const { return stream_; }
  const cudaDeviceProp& properties() const { return properties_; }

  // Remembers a failure; the first one counts.
  void Check(cudaError_t error, const char* what);
  void Fail(Error error);
  // What was remembered, once, and what launches have reported since. Not while operations are recorded.
  Status TakeError();

 private:
  // Host memory that copies can leave from while the host goes on.
  struct Stage {
    std::byte* data = nullptr;
    cudaEvent_t copied = nullptr;  // since the last copy that left from here
  };
  static constexpr size_t kStages = 4;
  static constexpr int64_t kStageBytes = int64_t{8} << 20;

  explicit Device(const cudaDeviceProp& properties) : properties_(properties) {}
  Status Init();

  cudaDeviceProp properties_;
  cudaStream_t stream_ = nullptr;
  std::mutex mutex_;  // guards what follows
  std::array<Stage, kStages> stages_;
  size_t next_stage_ = 0;
  std::byte* landing_ = nullptr;  // [kStageBytes] pinned, for Read
  Status error_ = Ok();
};

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_DEVICE_H_
