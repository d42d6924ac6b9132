#include "kernels/cpu/scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace swiftkv::kernels::cpu {
namespace {

struct Free {
  void operator()(std::byte* data) const { std::free(data); }
};

}  // namespace

std::byte* ThreadScratch(int64_t bytes) {
  thread_local std::unique_ptr<std::byte, Free> data;
  thread_local int64_t capacity = 0;
  if (bytes > capacity) {
    const int64_t size = RoundUp(bytes, 4096);
    data.reset(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(size))));
    if (data == nullptr) throw std::bad_alloc();  // a MiB or so: beyond repair, as any small allocation
    capacity = size;
  }
  return data.get();
}

}  // namespace swiftkv::kernels::cpu
