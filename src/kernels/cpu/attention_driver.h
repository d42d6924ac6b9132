// Cuts an attention call into pieces of work for all cores. Portable code around CpuKernels::attend.
#ifndef SWIFTKV_KERNELS_CPU_ATTENTION_DRIVER_H_
#define SWIFTKV_KERNELS_CPU_ATTENTION_DRIVER_H_

#include "kernels/cpu/cpu_kernels.h"

namespace swiftkv::kernels::cpu {

void RunAttention(const AttentionArgs& args, const CpuKernels& kernels);

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_ATTENTION_DRIVER_H_
