#include "kernels/cpu/scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace swiftkv::kernels::cpu {
namespace {

struct Free {
  void operator()(std::byte* data) const { std::free(data); }
};

class Scratch {
 public:
  std::byte* Get(int64_t bytes) {
    if (bytes > capacity_) {
      const int64_t size = RoundUp(bytes, 4096);
      capacity_ = 0;
      data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(size))));
      if (data_ == nullptr) throw std::bad_alloc();  // a MiB or so: beyond repair, as any small allocation
      capacity_ = size;
    }
    return data_.get();
  }

 private:
  std::unique_ptr<std::byte, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace

std::byte* ThreadScratch(int64_t bytes) {
  thread_local Scratch scratch;
  return scratch.Get(bytes);
}

std::byte* CallScratch(int64_t bytes) {
  thread_local Scratch scratch;
  return scratch.Get(bytes);
}

}  // namespace swiftkv::kernels::cpu
