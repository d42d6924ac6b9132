// The backends for x86-64 CPUs. Each may only be used where Cpu() (cpu_features.h) grants its instruction set.
#ifndef SWIFTKV_KERNELS_CPU_CPU_BACKEND_H_
#define SWIFTKV_KERNELS_CPU_CPU_BACKEND_H_

#include "kernels/ops.h"

namespace swiftkv::kernels::cpu {

const Backend& Avx2Backend();
const Backend& Avx2VnniBackend();
const Backend& Avx512Backend();
const Backend& Avx512VnniBackend();
const Backend& Avx512Bf16Backend();
// Avx512Bf16Backend with bf16 products on AMX tiles.
const Backend& AmxBackend();

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_CPU_BACKEND_H_
