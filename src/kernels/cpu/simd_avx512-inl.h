// The vector vocabulary of the kernels, in AVX-512: sixteen float32 lanes. Included inside a target region; no guard,
// because several instruction sets (with and without BF16 and VNNI) include it, each into its own namespace.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int kLanes = 16;
inline constexpr int kTileVectors = 4;  // register tile of a matrix product: 6 rows x 4 vectors of 32 registers
inline constexpr int kTileRows = 6;

struct Vec {
  __m512 v;
};

inline __mmask16 FirstLanes(int64_t n) {
  return n >= kLanes ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << n) - 1);
}

inline Vec Zero() { return {_mm512_setzero_ps()}; }
inline Vec Set(float value) { return {_mm512_set1_ps(value)}; }

// bf16 is the upper half of a float32.
inline Vec WidenBits(__m256i bits) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))}; }
// Round to nearest even; NaN stays NaN (base/bfloat16.h).
inline __m256i NarrowBits(Vec a) {
#if defined(SWIFTKV_HAS_DPBF16)
  return (__m256i)_mm512_cvtneps_pbh(a.v);
#else
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
#endif
}

// As NarrowBits, but for a NaN, and widened.
inline Vec RoundToBf16(Vec a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return {_mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(-65536)))};
}

inline Vec Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vec Load(const BFloat16* p) { return WidenBits(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vec Load(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
// float16
inline Vec LoadHalf(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void Store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline void Store(BFloat16* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), NarrowBits(a)); }
// The first n lanes, n > 0; the others are zero, or left alone in memory.
inline Vec LoadUpTo(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(FirstLanes(n), p)}; }
inline Vec LoadUpTo(const BFloat16* p, int64_t n) { return WidenBits(_mm256_maskz_loadu_epi16(FirstLanes(n), p)); }
inline void StoreUpTo(float* p, Vec a, int64_t n) { _mm512_mask_storeu_ps(p, FirstLanes(n), a.v); }
inline void StoreUpTo(BFloat16* p, Vec a, int64_t n) { _mm256_mask_storeu_epi16(p, FirstLanes(n), NarrowBits(a)); }

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
// 1 / a for a in [2^-126, 2^126], to 2^-22 relative: quicker than a division.
inline Vec Reciprocal(Vec a) {
  const __m512 guess = _mm512_rcp14_ps(a.v);
  return {_mm512_mul_ps(guess, _mm512_fnmadd_ps(a.v, guess, _mm512_set1_ps(2.0f)))};
}
// a * b + c, a * b - c, c - a * b, rounded once.
inline Vec MulAdd(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec MulSub(Vec a, Vec b, Vec c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }
inline Vec NegMulAdd(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
// Where either is NaN, the second.
inline Vec Max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec Min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec RoundToInt(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a * 2^exponent for whole exponents in [-300, 300].
inline Vec ScaleByPowerOf2(Vec a, Vec exponent) { return {_mm512_scalef_ps(a.v, exponent.v)}; }

// The nearest whole number to x in *n, and it again as bits that AddExponentAbove adds to an exponent. |x| < 2^21.
inline Vec RoundToExponent(Vec x, Vec* n) {
  const __m512 magic = _mm512_set1_ps(12582912.0f);  // 1.5 * 2^23: the sum's lowest bits are the whole number
  const __m512 sum = _mm512_add_ps(x.v, magic);
  n->v = _mm512_sub_ps(sum, magic);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(sum), 23))};
}
// p * 2^n where x is above `least` or NaN, else 0.
inline Vec AddExponentAbove(Vec x, Vec least, Vec p, Vec shift) {
  const __mmask16 above = _mm512_cmp_ps_mask(x.v, least.v, _CMP_NLE_UQ);
  return {_mm512_castsi512_ps(_mm512_maskz_add_epi32(above, _mm512_castps_si512(p.v), _mm512_castps_si512(shift.v)))};
}

inline float ReduceAdd(Vec a) {
  const __m256 low = _mm512_castps512_ps256(a.v);
  const __m256 high = _mm512_extractf32x8_ps(a.v, 1);
  const __m256 eight = _mm256_add_ps(low, high);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float ReduceMax(Vec a) { return _mm512_reduce_max_ps(a.v); }
// The first lane where a == b, or -1.
inline int FirstEqual(Vec a, Vec b) {
  const unsigned equal = _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ);
  return equal == 0 ? -1 : __builtin_ctz(equal);
}
// Lanes begin <= i < end of a, the others -infinity.
inline Vec KeepLanes(Vec a, int64_t begin, int64_t end) {
  const unsigned keep =
      (end <= 0 ? 0u : FirstLanes(end)) & ~(begin <= 0 ? 0u : static_cast<unsigned>(FirstLanes(begin)));
  return {
      _mm512_mask_mov_ps(_mm512_set1_ps(-std::numeric_limits<float>::infinity()), static_cast<__mmask16>(keep), a.v)};
}

// Two adjacent rows of one vector of columns as a right-hand operand of products (dot-inl.h) holds them: float32 rows
// `columns` apart; bf16 in pairs.
inline void StoreSteps(float* p, int64_t columns, Vec even, Vec odd) {
  Store(p, even);
  Store(p + columns, odd);
}
#if defined(SWIFTKV_HAS_DPBF16)
struct PairVec {
  __m512i v;
};
inline PairVec PairsOf(Vec even, Vec odd) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return {_mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v))};
}
#endif
inline void StoreSteps(BFloat16* p, int64_t /*columns*/, Vec even, Vec odd) {
#if defined(SWIFTKV_HAS_DPBF16)
  _mm512_storeu_si512(p, PairsOf(even, odd).v);
#else
  const __m512i low = _mm512_cvtepu16_epi32(NarrowBits(even));
  const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(NarrowBits(odd)), 16);
  _mm512_storeu_si512(p, _mm512_or_si512(low, high));
#endif
}

// Words of small whole numbers: part i of each lane as float32.
struct WordVec {
  __m512i v;
};
inline WordVec LoadWords(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Vec Nibble(WordVec a, int i) {
  const __m512 numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  // The permutation looks at the lowest four bits alone.
  return {_mm512_permutexvar_ps(_mm512_srlv_epi32(a.v, _mm512_set1_epi32(4 * i)), numbers)};
}
inline Vec Byte(WordVec a, int i) {  // signed
  const __m512i shifted = _mm512_sllv_epi32(a.v, _mm512_set1_epi32(24 - 8 * i));
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(shifted, 24))};
}

// Whole numbers of 32 bits, and fours of int8 that products add up into them.
struct IntVec {
  __m512i v;
};
inline IntVec LoadInts(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void StoreInts(int32_t* p, IntVec a) { _mm512_storeu_si512(p, a.v); }
inline IntVec operator-(IntVec a, IntVec b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline Vec ToFloat(IntVec a) { return {_mm512_cvtepi32_ps(a.v)}; }
// The nearest whole numbers, even ones where two are as near; within int8. `zero`, 0 or -128, is what 0 becomes.
inline void StoreRounded(int8_t* p, Vec a, int8_t zero) {
  const __m128i codes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_xor_si128(codes, _mm_set1_epi8(zero)));
}
// The largest of |p[i]|, NaN above all; `count` is a multiple of 32.
inline BFloat16 LargestMagnitude(const BFloat16* p, int64_t count) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  __m512i largest = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 32) {
    largest = _mm512_max_epi16(largest, _mm512_and_si512(_mm512_loadu_si512(p + i), magnitude));
  }
  const __m512i wide =
      _mm512_max_epi32(_mm512_srli_epi32(largest, 16), _mm512_and_si512(largest, _mm512_set1_epi32(0x7fff)));
  return {static_cast<uint16_t>(_mm512_reduce_max_epi32(wide))};
}
inline __m512i BroadcastCodes(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm512_set1_epi32(four);
}
#if defined(SWIFTKV_HAS_VNNI)
// VPDPBUSD takes the inputs as unsigned, so they are moved up by 128 when they are quantized; AMX's tiles take signed
// ones.
#if defined(SWIFTKV_HAS_AMX)
inline constexpr bool kMovesInputsUp = false;
#else
inline constexpr bool kMovesInputsUp = true;
#endif
struct FourVec {
  __m512i v;
};
inline FourVec LoadFours(const int8_t* p) { return {_mm512_loadu_si512(p)}; }
inline FourVec BroadcastFour(const int8_t* p) { return {BroadcastCodes(p)}; }
inline IntVec DotFours(FourVec x, FourVec w, IntVec sum) {
  // With the intrinsic GCC 12 moves and spills the sums of a tile, which takes more time than the products.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(x.v), "v"(w.v));
  return sum;
}
#else
inline constexpr bool kMovesInputsUp = false;
struct FourVec {
  __m512i even, odd;  // as int16
};
inline FourVec WidenFours(__m512i fours) {
  return {_mm512_srai_epi16(_mm512_slli_epi16(fours, 8), 8), _mm512_srai_epi16(fours, 8)};
}
inline FourVec LoadFours(const int8_t* p) { return WidenFours(_mm512_loadu_si512(p)); }
inline FourVec BroadcastFour(const int8_t* p) { return WidenFours(BroadcastCodes(p)); }
inline IntVec DotFours(FourVec x, FourVec w, IntVec sum) {
  const __m512i pairs = _mm512_add_epi32(_mm512_madd_epi16(x.even, w.even), _mm512_madd_epi16(x.odd, w.odd));
  return {_mm512_add_epi32(sum.v, pairs)};
}
#endif

// The codes of a block of 32 input features (quantized_layout.h) of one vector of output features, and the sum of their
// products with a row of inputs x. Nibbles want each eight inputs in the order 0 2 4 6 1 3 5 7. `excess`: 128 times the
// sum of x.
#if defined(SWIFTKV_HAS_VNNI)
struct NibbleBlock {
  __m512i fours[8];  // without sign
};
inline IntVec DotBlock(const NibbleBlock& w, const int8_t* x, int32_t /*excess*/) {
  IntVec even = {_mm512_setzero_si512()};
  IntVec odd = even;
  SWIFTKV_UNROLL
  for (int i = 0; i < 8; i += 2) {
    even.v = _mm512_dpbusd_epi32(even.v, w.fours[i], BroadcastCodes(x + 4 * i));
    odd.v = _mm512_dpbusd_epi32(odd.v, w.fours[i + 1], BroadcastCodes(x + 4 * i + 4));
  }
  return {_mm512_add_epi32(even.v, odd.v)};
}
struct ByteBlock {
  __m512i fours[8];  // moved up by 128
};
inline ByteBlock LoadByteBlock(const uint32_t* words, int64_t stride) {
  ByteBlock w;
  for (int i = 0; i < 8; ++i) {
    w.fours[i] =
        _mm512_xor_si512(_mm512_loadu_si512(words + i * stride), _mm512_set1_epi32(static_cast<int>(0x80808080u)));
  }
  return w;
}
inline IntVec DotBlock(const ByteBlock& w, const int8_t* x, int32_t excess) {
  IntVec even = {_mm512_set1_epi32(-excess)};
  IntVec odd = {_mm512_setzero_si512()};
  SWIFTKV_UNROLL
  for (int i = 0; i < 8; i += 2) {
    even.v = _mm512_dpbusd_epi32(even.v, w.fours[i], BroadcastCodes(x + 4 * i));
    odd.v = _mm512_dpbusd_epi32(odd.v, w.fours[i + 1], BroadcastCodes(x + 4 * i + 4));
  }
  return {_mm512_add_epi32(even.v, odd.v)};
}
#else
struct NibbleBlock {
  __m512i fours[8];  // without sign
};
inline IntVec DotBlock(const NibbleBlock& w, const int8_t* x, int32_t /*excess*/) {
  __m512i pairs = _mm512_setzero_si512();  // at most 16 products of 15 and 127: they fit int16
  SWIFTKV_UNROLL
  for (int i = 0; i < 8; ++i) {
    pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w.fours[i], BroadcastCodes(x + 4 * i)));
  }
  return {_mm512_madd_epi16(pairs, _mm512_set1_epi16(1))};
}
struct ByteBlock {
  FourVec fours[8];
};
inline ByteBlock LoadByteBlock(const uint32_t* words, int64_t stride) {
  ByteBlock w;
  for (int i = 0; i < 8; ++i) w.fours[i] = LoadFours(reinterpret_cast<const int8_t*>(words + i * stride));
  return w;
}
inline IntVec DotBlock(const ByteBlock& w, const int8_t* x, int32_t /*excess*/) {
  IntVec sum = {_mm512_setzero_si512()};
  SWIFTKV_UNROLL
  for (int i = 0; i < 8; ++i) sum = DotFours(BroadcastFour(x + 4 * i), w.fours[i], sum);
  return sum;
}
#endif
inline NibbleBlock LoadNibbleBlock(const uint32_t* words, int64_t stride) {
  const __m512i mask = _mm512_set1_epi8(15);
  NibbleBlock w;
  SWIFTKV_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512i codes = _mm512_loadu_si512(words + i * stride);
    w.fours[2 * i] = _mm512_and_si512(codes, mask);
    w.fours[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi32(codes, 4), mask);
  }
  return w;
}

// Sixteen columns of two adjacent bf16 rows, as float32: the even row and the odd row.
inline Vec EvenOfPairs(const BFloat16* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))};
}
inline Vec OddOfPairs(const BFloat16* p) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(-65536)))};
}

#if defined(SWIFTKV_HAS_DPBF16)
inline PairVec LoadPairs(const BFloat16* p) { return {_mm512_loadu_si512(p)}; }
inline PairVec BroadcastPair(const BFloat16* p) {
  int32_t pair;
  std::memcpy(&pair, p, sizeof(pair));
  return {_mm512_set1_epi32(pair)};
}
inline Vec DotPairs(PairVec a, PairVec b, Vec c) { return {_mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v)}; }
#endif

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
