// A device for tests on a machine that has none: a CPU's backend whose memory is not the host's. Its pages can be read
// and written while one of its operations runs and at no other time, so code that touches a device's memory from the
// host crashes here as it would there. Behind each buffer lies a red zone, and steps are padded as CUDA's are.
//
//   FakeDevice device(kernels::DefaultBackend());
//   Weights weights = *RandomWeights(config, 1, {.backend = &device});
//   device.memory().FailRead(7);            // the eighth from now on
//   EXPECT_TRUE(device.memory().intact());  // nothing was written behind a buffer
#ifndef SWIFTKV_MODEL_FAKE_DEVICE_H_
#define SWIFTKV_MODEL_FAKE_DEVICE_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace swiftkv {

class FakeDeviceMemory final : public MemorySpace {
 public:
  // Lets everything be touched while it lives; one thread's may lie within another's.
  class Opened {
   public:
    explicit Opened(FakeDeviceMemory* memory) : memory_(memory) { memory_->Open(1); }
    ~Opened() { memory_->Open(-1); }
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;

   private:
    FakeDeviceMemory* memory_;
  };

  FakeDeviceMemory() {
    void* data = mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    begin_ = data == MAP_FAILED ? nullptr : static_cast<std::byte*>(data);
  }
  ~FakeDeviceMemory() override {
    if (begin_ != nullptr) munmap(begin_, kReserved);
  }

  // The call-th (from 0) from now on fails, once; -1: none does. TakeError tells it then, and Allocate itself, too.
  void FailRead(int64_t call) { reads_left_ = call, failed_ = false; }
  void FailAllocation(int64_t call) { allocations_left_ = call, failed_ = false; }
  bool failed() const { return failed_; }
  void Fail(Error error) {
    const std::lock_guard lock(mutex_);
    error_ = tl::unexpected<Error>(std::move(error));
  }
  Status TakeError() {
    const std::lock_guard lock(mutex_);
    return std::exchange(error_, Ok());
  }

  bool is_host() const override { return false; }
  // Addresses are never used again, so that what has been freed can't be mistaken for what came after it.
  Result<std::byte*> Allocate(int64_t bytes, const char* what) override {
    const Opened opened(this);
    const std::lock_guard lock(mutex_);
    if (Fails(&allocations_left_)) return ResourceExhausted("{}: a fake device's memory is full", what);
    if (limit_ > 0 && allocated_ + bytes > limit_) return ResourceExhausted("{}: {} bytes are too many", what, bytes);
    const size_t size = (static_cast<size_t>(bytes) + kRedZone + kPage - 1) / kPage * kPage;
    if (begin_ == nullptr || used_ + size > kReserved) return ResourceExhausted("{}: no fake memory left", what);
    std::byte* data = begin_ + used_;
    used_ += size;
    mprotect(data, size, PROT_READ | PROT_WRITE);
    std::memset(data + bytes, kRed, kRedZone);
    buffers_.emplace(data, bytes);
    allocated_ += bytes;
    return data;
  }
  void Free(std::byte* data, int64_t bytes) override {
    const Opened opened(this);
    const std::lock_guard lock(mutex_);
    intact_ &= IsIntact(data, bytes);
    buffers_.erase(data);
    allocated_ -= bytes;
    madvise(data, static_cast<size_t>(bytes), MADV_DONTNEED);
  }

  void Write(std::byte* to, const void* from, int64_t bytes) override {
    const Opened opened(this);
    HostMemory().Copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes);
  }
  void Read(void* to, const std::byte* from, int64_t bytes) override {
    {
      const std::lock_guard lock(mutex_);
      if (Fails(&reads_left_)) return;
    }
    const Opened opened(this);
    HostMemory().Copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes);
  }
  void Zero(std::byte* to, int64_t bytes) override {
    const Opened opened(this);
    HostMemory().Zero(to, bytes);
  }
  void Copy(std::byte* to, const std::byte* from, int64_t bytes) override {
    const Opened opened(this);
    HostMemory().Copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes);
  }
  int64_t available_bytes() override {
    const std::lock_guard lock(mutex_);
    return limit_ > 0 ? limit_ - allocated_ : 0;
  }

  // Of all buffers together; 0: no limit.
  void SetLimit(int64_t bytes) { limit_ = bytes; }
  int64_t allocated() const { return allocated_; }
  // Whether nothing has been written behind a buffer.
  bool intact() {
    const Opened opened(this);
    const std::lock_guard lock(mutex_);
    return intact_ && std::all_of(buffers_.begin(), buffers_.end(),
                                  [](const auto& buffer) { return IsIntact(buffer.first, buffer.second); });
  }

 private:
  static constexpr size_t kReserved = size_t{16} << 30;
  static constexpr size_t kPage = 4096;
  static constexpr size_t kRedZone = 4096;
  static constexpr int kRed = 0xA5;

  static bool IsIntact(const std::byte* data, int64_t bytes) {
    return std::all_of(data + bytes, data + bytes + kRedZone, [](std::byte b) { return b == std::byte{kRed}; });
  }

  bool Fails(int64_t* calls_left) {
    if (*calls_left < 0 || (*calls_left)-- > 0) return false;
    failed_ = true;
    if (error_) error_ = MakeError(ErrorCode::kInternal, "a fake device failed");
    return true;
  }
  void Open(int change) {
    const std::lock_guard lock(mutex_);
    const bool was_open = opened_ > 0;
    opened_ += change;
    if (was_open == (opened_ > 0) || used_ == 0) return;
    mprotect(begin_, used_, was_open ? PROT_NONE : PROT_READ | PROT_WRITE);
  }

  std::mutex mutex_;
  std::byte* begin_ = nullptr;
  size_t used_ = 0;
  int opened_ = 0;
  std::map<std::byte*, int64_t> buffers_;  // that are allocated, and their bytes
  int64_t allocated_ = 0;
  int64_t limit_ = 0;
  bool intact_ = true;
  int64_t reads_left_ = -1;  // until one fails
  int64_t allocations_left_ = -1;
  bool failed_ = false;
  Status error_ = Ok();
};

// The gradients of a FakeDevice.
class FakeDeviceBackward final : public kernels::BackwardOps {
 public:
  FakeDeviceBackward(const kernels::BackwardOps& host, FakeDeviceMemory* memory) : host_(host), memory_(memory) {}
  void RmsNorm(const kernels::RmsNormBackwardArgs& args) const override { Opened(), host_.RmsNorm(args); }
  void Rope(const kernels::RopeBackwardArgs& args) const override { Opened(), host_.Rope(args); }
  void SiluMul(const kernels::SiluMulBackwardArgs& args) const override { Opened(), host_.SiluMul(args); }
  void Attention(const kernels::AttentionBackwardArgs& args) const override { Opened(), host_.Attention(args); }
  void KlLoss(const kernels::KlLossArgs& args) const override { Opened(), host_.KlLoss(args); }
  void Round(const kernels::RoundArgs& args) const override { Opened(), host_.Round(args); }
  void Transpose(const kernels::TransposeArgs& args) const override { Opened(), host_.Transpose(args); }
  void AddColumnSums(const kernels::ColumnSumsArgs& args) const override { Opened(), host_.AddColumnSums(args); }
  void ScatterRows(const kernels::ScatterRowsArgs& args) const override { Opened(), host_.ScatterRows(args); }
  void HiddenLoss(const kernels::HiddenLossArgs& args) const override { Opened(), host_.HiddenLoss(args); }
  void SumOfSquares(const kernels::SumOfSquaresArgs& args) const override { Opened(), host_.SumOfSquares(args); }
  void AdamW(const kernels::AdamWArgs& args) const override { Opened(), host_.AdamW(args); }

 private:
  // Lives to the end of the expression that it begins.
  FakeDeviceMemory::Opened Opened() const { return FakeDeviceMemory::Opened(memory_); }

  const kernels::BackwardOps& host_;
  FakeDeviceMemory* memory_;
};

class FakeDevice final : public kernels::Backend {
 public:
  // `host` must outlive this; the bytes of all results are its own.
  explicit FakeDevice(const kernels::Backend& host) : host_(host), backward_(host.backward(), &memory_) {}

  std::string_view name() const override { return host_.name(); }
  FakeDeviceMemory& memory() const override { return memory_; }
  Status TakeError() const override { return memory_.TakeError(); }
  int64_t max_head_dim() const override { return 256; }
  int64_t tile_rows() const override { return host_.tile_rows(); }
  int64_t later_kv_rows() const override { return host_.later_kv_rows(); }
  int64_t logit_rows() const override { return host_.logit_rows(); }
  // As CUDA's.
  int64_t RecordedRows(int64_t rows) const override {
    if (rows <= 4) return rows;
    const int64_t step = rows <= 64 ? 8 : rows <= 256 ? 16 : 64;
    return (rows + step - 1) / step * step;
  }

  Result<kernels::PackedMatrix> AllocatePacked(int64_t n, int64_t k, DType dtype) const override {
    return Moved(host_.AllocatePacked(n, k, dtype));
  }
  Result<kernels::PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact) const override {
    return Moved(host_.AllocateInt8(n, k, std::move(exact)));
  }
  void PackRows(const float* rows, int64_t begin, int64_t count, kernels::PackedMatrix* w) const override {
    Opened(), host_.PackRows(rows, begin, count, w);
  }
  void PackQuantizedRows(const kernels::QuantizedRows& rows, int64_t begin, int64_t count,
                         kernels::PackedMatrix* w) const override {
    Opened(), host_.PackQuantizedRows(rows, begin, count, w);
  }
  void RepackInt8Rows(const kernels::PackedMatrix& from, int64_t begin, int64_t count,
                      kernels::PackedMatrix* w) const override {
    Opened(), host_.RepackInt8Rows(from, begin, count, w);
  }
  void PackFromMemory(const float* rows, int64_t begin, int64_t count, kernels::PackedMatrix* w) const override {
    Opened(), host_.PackFromMemory(rows, begin, count, w);
  }
  void PackTransposed(const void* x, DType dtype, int64_t rows, int64_t columns,
                      kernels::PackedMatrix* w) const override {
    Opened(), host_.PackTransposed(x, dtype, rows, columns, w);
  }
  Status TransposePacked(const kernels::PackedMatrix& w, kernels::PackedMatrix* out) const override {
    return Opened(), host_.TransposePacked(w, out);
  }
  void UnpackRows(const kernels::PackedMatrix& w, const int32_t* ids, int64_t count, float* out) const override {
    Opened(), host_.UnpackRows(w, ids, count, out);
  }

  void Gemm(const kernels::GemmArgs& args) const override { Opened(), host_.Gemm(args); }
  void GatedGemm(const kernels::GatedGemmArgs& args) const override { Opened(), host_.GatedGemm(args); }
  void RmsNorm(const kernels::RmsNormArgs& args) const override { Opened(), host_.RmsNorm(args); }
  void Rope(const kernels::RopeArgs& args) const override { Opened(), host_.Rope(args); }
  // Rows that write no cache, which no CPU has, stand last.
  void RotateAndStore(const kernels::RotateAndStoreArgs& args) const override {
    const FakeDeviceMemory::Opened opened(&memory_);
    kernels::RotateAndStoreArgs written = args;
    while (written.kv.rows > 0 && written.kv.slots[written.kv.rows - 1] < 0) --written.kv.rows;
    host_.RotateAndStore(written);
  }
  void GatherRows(const float* x, int64_t size, const int32_t* rows, int64_t count, float* out) const override {
    Opened(), host_.GatherRows(x, size, rows, count, out);
  }
  void SiluMul(const kernels::SiluMulArgs& args) const override { Opened(), host_.SiluMul(args); }

  Status CheckCacheType(DType cache_dtype) const override { return host_.CheckCacheType(cache_dtype); }
  int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype) const override {
    return host_.KvBlockBytes(kv_heads, head_dim, cache_dtype);
  }
  void WriteKv(const kernels::KvWriteArgs& args) const override { Opened(), host_.WriteKv(args); }
  // Of `sequences` the number alone counts, as on a device.
  void Attention(const kernels::AttentionArgs& args) const override {
    const FakeDeviceMemory::Opened opened(&memory_);
    kernels::AttentionArgs on_device = args;
    on_device.sequences = {args.resident_sequences, args.sequences.size()};
    host_.Attention(on_device);
  }

  void ComputeLogitStats(const float* logits, int64_t rows, int64_t vocab, kernels::LogitStats* stats) const override {
    Opened(), host_.ComputeLogitStats(logits, rows, vocab, stats);
  }
  void KlDivergence(const float* p, const float* q, int64_t rows, int64_t vocab, float* kl) const override {
    Opened(), host_.KlDivergence(p, q, rows, vocab, kl);
  }
  const kernels::BackwardOps& backward() const override { return backward_; }

 private:
  FakeDeviceMemory::Opened Opened() const { return FakeDeviceMemory::Opened(&memory_); }

  Result<kernels::PackedMatrix> Moved(Result<kernels::PackedMatrix> allocated) const {
    SWIFTKV_ASSIGN_OR_RETURN(kernels::PackedMatrix w, std::move(allocated));
    SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer data, AlignedBuffer::Allocate(w.data.bytes(), "weights", memory_));
    memory_.Write(data.data(), w.data.data(), w.data.bytes());
    w.data = std::move(data);
    return w;
  }

  const kernels::Backend& host_;
  mutable FakeDeviceMemory memory_;
  const FakeDeviceBackward backward_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_FAKE_DEVICE_H_
