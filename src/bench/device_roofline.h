// The roofline of a GPU (roofline.h). Internal to the bench room.
#ifndef SWIFTKV_BENCH_DEVICE_ROOFLINE_H_
#define SWIFTKV_BENCH_DEVICE_ROOFLINE_H_

#include <functional>
#include <vector>

#include "bench/roofline.h"
#include "kernels/ops.h"

namespace swiftkv {

// The shortest of the runs that fit into `seconds`, at least two: the first one warms up.
double BestRun(double seconds, const std::function<void()>& run);

// Products of 8,192 rows, input and output features, the library's best; `read_bandwidth` is that of a copy, its bytes
// read and written. Errors: kResourceExhausted, and what the device says.
Result<Roofline> MeasureDeviceRoofline(const kernels::Backend& ops, const std::vector<DType>& dtypes, double seconds);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_DEVICE_ROOFLINE_H_
