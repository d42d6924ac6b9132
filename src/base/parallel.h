// The one place where the program spreads work over cores. Kernels write each output element from one thread in one
// fixed order, so that results do not depend on the number of threads.
//
//   ParallelFor(rows, [&](int64_t row) { Normalize(x + row * stride); });
//
// The threads are a pool of the process's own (docs/decisions/0011-threads.md): a thread without work spins for some
// microseconds and then sleeps, and a call waits for no thread that has not begun, so that busy neighbours cost their
// share of the cores and no more.
#ifndef SWIFTKV_BASE_PARALLEL_H_
#define SWIFTKV_BASE_PARALLEL_H_

#include <cstdint>

namespace swiftkv {

inline constexpr int kMaxThreads = 1024;

// The cores that this process may run on, 1 .. kMaxThreads.
int AvailableCores();
// Threads that ParallelFor uses: AvailableCores(), unless SetThreads chose otherwise.
int Threads();
// 1 <= threads <= kMaxThreads. More than there are cores only costs.
void SetThreads(int threads);

namespace parallel_internal {
using Body = void (*)(const void* context, int64_t index);
void Run(int64_t count, Body body, const void* context) noexcept;
}  // namespace parallel_internal

// Calls body(index) for index in [0, count), spread over Threads(), this thread among them; returns when all are done.
// Indices are handed out dynamically, one at a time: make each a worthwhile piece of work. `body` must not throw.
// Within a body, and while another thread's call has the pool, the calling thread does the work alone.
template <class Body>
void ParallelFor(int64_t count, const Body& body) {
  if (count <= 1 || Threads() == 1) {
    for (int64_t index = 0; index < count; ++index) body(index);
    return;
  }
  parallel_internal::Run(
      count, [](const void* context, int64_t index) { (*static_cast<const Body*>(context))(index); }, &body);
}

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_PARALLEL_H_
