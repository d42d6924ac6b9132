// What this CPU can run and the operating system lets us use.
#ifndef SWIFTKV_KERNELS_CPU_FEATURES_H_
#define SWIFTKV_KERNELS_CPU_FEATURES_H_

namespace swiftkv::kernels {

struct CpuFeatures {
  bool avx2 = false;         // AVX2, FMA, F16C
  bool avx2_vnni = false;    // VPDPBUSD without AVX-512 (AVX-VNNI), and avx2
  bool avx512 = false;       // AVX-512 F, BW, DQ, VL, and avx2
  bool avx512_vnni = false;  // VPDPBUSD, and avx512
  bool avx512_bf16 = false;  // VDPBF16PS, and avx512_vnni: no CPU has the one without the other
  bool amx_bf16 = false;     // AMX tiles with BF16 and INT8, permitted by the kernel for this process, and avx512_bf16
};

// Detected once. The first call asks the kernel for permission to use AMX tile registers.
const CpuFeatures& Cpu();

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_CPU_FEATURES_H_
