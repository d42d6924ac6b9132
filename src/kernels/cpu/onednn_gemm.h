// bf16 products by oneDNN, for CPUs with AMX: its generated code reads our packed panels as they lie.
#ifndef SWIFTKV_KERNELS_CPU_ONEDNN_GEMM_H_
#define SWIFTKV_KERNELS_CPU_ONEDNN_GEMM_H_

#include "kernels/ops.h"

namespace swiftkv::kernels::cpu {

// Needs AVX-512 BF16; uses AMX where the CPU has it. float32 weights go to our own kernel.
void OneDnnGemm(const GemmArgs& args);

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_ONEDNN_GEMM_H_
