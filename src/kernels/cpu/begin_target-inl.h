// Opens a region whose functions are compiled for the instruction set SWIFTKV_TARGET. No include guard: each
// instruction set's file includes it once, after everything that must stay portable (docs/decisions/0002-simd.md).
#if defined(__clang__)
#define SWIFTKV_PRAGMA(text) _Pragma(#text)
#define SWIFTKV_PUSH_TARGET(target_string) \
  SWIFTKV_PRAGMA(clang attribute push(__attribute__((target(target_string))), apply_to = function))
SWIFTKV_PUSH_TARGET(SWIFTKV_TARGET)
#else
#define SWIFTKV_PRAGMA(text) _Pragma(#text)
#define SWIFTKV_PUSH_TARGET(target_string) SWIFTKV_PRAGMA(GCC target(target_string))
#pragma GCC push_options
SWIFTKV_PUSH_TARGET(SWIFTKV_TARGET)
#endif

#if defined(__clang__)
#define SWIFTKV_UNROLL _Pragma("unroll")
#else
#define SWIFTKV_UNROLL _Pragma("GCC unroll 16")
#endif
