// The kernels for AMX: bf16 products on tiles, everything else as with AVX-512 BF16. The first part is a list: see
// docs/decisions/0002-simd.md for why it looks like this.
#include "kernels/cpu/cpu_kernels.h"

#define SWIFTKV_SIMD_NAMESPACE amx
#define SWIFTKV_TARGET \
  "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-bf16,amx-int8"
#define SWIFTKV_HAS_DPBF16
#define SWIFTKV_HAS_VNNI
#define SWIFTKV_HAS_AMX
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
#include "kernels/cpu/amx_gemm-inl.h"
#include "kernels/cpu/amx_quantized-inl.h"
#include "kernels/cpu/attention_blocks-inl.h"
#include "kernels/cpu/kv_int8-inl.h"
#include "kernels/cpu/amx_attention-inl.h"
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/kv_int8_fours-inl.h"
#include "kernels/cpu/amx_kv_int8-inl.h"
#include "kernels/cpu/amx_block-inl.h"
#include "kernels/cpu/block_product-inl.h"
#include "kernels/cpu/attention_backward-inl.h"
#include "kernels/cpu/end_target-inl.h"
// clang-format on

namespace swiftkv::kernels::cpu {

const CpuKernels& AmxKernels() {
  static const CpuKernels kernels = [] {
    CpuKernels table = Avx512Bf16Kernels();
    table.gemm = [](const GemmArgs& args) {
      if (args.w->activation_dtype() == DType::kBF16) return amx::AmxGemm(args);
      Avx512Bf16Kernels().gemm(args);
    };
    table.gated_gemm = amx::AmxGatedGemm;
    table.attend = amx::AmxAttend;
    table.multiplies_int8_cache = true;
    table.attention_backward = amx::AttentionBackward;
    return table;
  }();
  return kernels;
}

}  // namespace swiftkv::kernels::cpu
