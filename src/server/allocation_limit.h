// Lets large allocations fail in a test.
#ifndef SWIFTKV_SERVER_ALLOCATION_LIMIT_H_
#define SWIFTKV_SERVER_ALLOCATION_LIMIT_H_

#include <atomic>
#include <cstddef>
#include <limits>

namespace swiftkv {

inline constexpr size_t kNoAllocationLimit = std::numeric_limits<size_t>::max();
extern std::atomic<size_t> allocation_limit;  // operator new fails from this size on, in all threads

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_ALLOCATION_LIMIT_H_
