#include "kernels/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace swiftkv::kernels {
namespace {

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers CpuId(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

bool Bit(uint32_t value, int bit) { return (value >> bit & 1u) != 0; }

// XCR0: which register files the operating system saves at a context switch. Without its bit, a vector instruction
// that the CPU knows still faults or loses its registers.
uint64_t EnabledRegisterFiles() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux hands out the 8 KiB of tile registers only to a process that asked (arch/x86/include/uapi/asm/prctl.h).
bool RequestAmxPermission() {
  constexpr int64_t kArchReqXcompPerm = 0x1023;
  constexpr int64_t kXfeatureXtileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtileData) == 0;
}

CpuFeatures Detect() {
  CpuFeatures cpu;
  const Registers leaf1 = CpuId(1, 0);
  const bool osxsave = Bit(leaf1.ecx, 27);
  if (!osxsave) return cpu;
  constexpr uint64_t kAvxState = 0x6;         // XMM, YMM
  constexpr uint64_t kAvx512State = 0xe6;     // and opmask, ZMM0-15 upper halves, ZMM16-31
  constexpr uint64_t kAmxState = 3ull << 17;  // tile configuration, tile data
  const uint64_t enabled = EnabledRegisterFiles();
  const Registers leaf7 = CpuId(7, 0);
  const Registers leaf7_1 = CpuId(7, 1);

  const bool fma = Bit(leaf1.ecx, 12);
  const bool f16c = Bit(leaf1.ecx, 29);
  cpu.avx2 = (enabled & kAvxState) == kAvxState && Bit(leaf7.ebx, 5) && fma && f16c;
  cpu.avx2_vnni = cpu.avx2 && Bit(leaf7_1.eax, 4);
  const bool f_dq_bw_vl = Bit(leaf7.ebx, 16) && Bit(leaf7.ebx, 17) && Bit(leaf7.ebx, 30) && Bit(leaf7.ebx, 31);
  cpu.avx512 = cpu.avx2 && (enabled & kAvx512State) == kAvx512State && f_dq_bw_vl;
  cpu.avx512_vnni = cpu.avx512 && Bit(leaf7.ecx, 11);
  cpu.avx512_bf16 = cpu.avx512_vnni && Bit(leaf7_1.eax, 5);
  const bool amx_bf16_tile_int8 = Bit(leaf7.edx, 22) && Bit(leaf7.edx, 24) && Bit(leaf7.edx, 25);
  cpu.amx_bf16 = cpu.avx512_bf16 && amx_bf16_tile_int8 && (enabled & kAmxState) == kAmxState && RequestAmxPermission();
  return cpu;
}

}  // namespace

const CpuFeatures& Cpu() {
  static const CpuFeatures cpu = Detect();
  return cpu;
}

}  // namespace swiftkv::kernels
