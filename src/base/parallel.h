// The one place where the program spreads work over cores. Kernels write each output element from one thread in one
// fixed order, so that results do not depend on the number of threads.
#ifndef SWIFTKV_BASE_PARALLEL_H_
#define SWIFTKV_BASE_PARALLEL_H_

#include <cstdint>

namespace swiftkv {

// Threads that ParallelFor uses: the cores that this process may run on, unless SetThreads chose otherwise.
int Threads();
// 1 <= threads <= 1024.
void SetThreads(int threads);

// Calls body(index) for index in [0, count), spread over Threads(); returns when all are done. Indices are handed out
// dynamically, one at a time: make each a worthwhile piece of work. `body` must not throw. Do not nest.
template <class Body>
void ParallelFor(int64_t count, const Body& body) {
  if (count <= 1 || Threads() == 1) {
    for (int64_t index = 0; index < count; ++index) body(index);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(Threads())
  for (int64_t index = 0; index < count; ++index) body(index);
}

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_PARALLEL_H_
