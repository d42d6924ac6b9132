// The kernels for AVX-512 with VNNI but without BF16 instructions. This file is a list: see docs/decisions/0002-simd.md
// for why it looks like this.
#include "kernels/cpu/cpu_kernels.h"

#define SWIFTKV_SIMD_NAMESPACE avx512_vnni
#define SWIFTKV_TARGET "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#define SWIFTKV_HAS_VNNI
// The order matters.
// clang-format off
#include "kernels/cpu/begin_target-inl.h"
#include "kernels/cpu/simd_avx512-inl.h"
#include "kernels/cpu/dot-inl.h"
#include "kernels/cpu/dequantize-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/gemm_int8-inl.h"
#include "kernels/cpu/gemm_quantized-inl.h"
#include "kernels/cpu/rowwise-inl.h"
#include "kernels/cpu/gated_gemm-inl.h"
#include "kernels/cpu/attention_blocks-inl.h"
#include "kernels/cpu/kv_int8-inl.h"
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/kv_int8_fours-inl.h"
#include "kernels/cpu/vnni_kv_int8-inl.h"
#include "kernels/cpu/rowwise_backward-inl.h"
#include "kernels/cpu/block_product-inl.h"
#include "kernels/cpu/attention_backward-inl.h"
#include "kernels/cpu/kernel_table-inl.h"
#include "kernels/cpu/end_target-inl.h"
// clang-format on

namespace swiftkv::kernels::cpu {

const CpuKernels& Avx512VnniKernels() {
  static const CpuKernels kernels = [] {
    CpuKernels table = avx512_vnni::kKernels;
    table.attend = avx512_vnni::VnniAttend;
    table.multiplies_int8_cache = true;
    return table;
  }();
  return kernels;
}

}  // namespace swiftkv::kernels::cpu
