// What one core can do at most, with everything in registers: the yardstick for the share that Gemm reaches.
//
//   for (const PeakLoop& loop : AvailablePeakLoops()) { ... time loop.run() ...; loop.flops / seconds; }
#ifndef SWIFTKV_KERNELS_PEAK_H_
#define SWIFTKV_KERNELS_PEAK_H_

#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace swiftkv::kernels {

struct PeakLoop {
  std::string_view name;  // "amx_bf16"
  DType dtype;            // of the factors; sums are float32, of kI8 int32
  double flops;           // of one call, a multiply-add counting as two
  void (*run)();          // on the calling thread; some milliseconds
};

// Those that this CPU can run, slowest first.
std::vector<PeakLoop> AvailablePeakLoops();

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_PEAK_H_
