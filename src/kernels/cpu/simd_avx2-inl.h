// The vector vocabulary of the kernels, in AVX2: eight float32 lanes. The meaning of each name stands in
// simd_avx512-inl.h. Included inside a target region; no guard, because two instruction sets (with and without VNNI)
// include it, each into its own namespace.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int kLanes = 8;
inline constexpr int kTileVectors = 2;  // register tile of a matrix product: 6 rows x 2 vectors of 16 registers
inline constexpr int kTileRows = 6;

struct Vec {
  __m256 v;
};

inline __m256i FirstLanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(n, 0, kLanes))), lane);
}

inline Vec Zero() { return {_mm256_setzero_ps()}; }
inline Vec Set(float value) { return {_mm256_set1_ps(value)}; }

inline Vec WidenBits(__m128i bits) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))}; }
inline __m128i NarrowBits(Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}

inline Vec RoundToBf16(Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  return {_mm256_castsi256_ps(_mm256_and_si256(rounded, _mm256_set1_epi32(-65536)))};
}

inline Vec Load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Vec Load(const BFloat16* p) { return WidenBits(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vec Load(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
inline Vec LoadHalf(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline void Store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
inline void Store(BFloat16* p, Vec a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), NarrowBits(a)); }
inline Vec LoadUpTo(const float* p, int64_t n) {
  return n >= kLanes ? Load(p) : Vec{_mm256_maskload_ps(p, FirstLanes(n))};
}
inline Vec LoadUpTo(const BFloat16* p, int64_t n) {
  if (n >= kLanes) return Load(p);
  BFloat16 lanes[kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(BFloat16));
  return Load(lanes);
}
inline void StoreUpTo(float* p, Vec a, int64_t n) {
  if (n >= kLanes) return Store(p, a);
  _mm256_maskstore_ps(p, FirstLanes(n), a.v);
}
inline void StoreUpTo(BFloat16* p, Vec a, int64_t n) {
  if (n >= kLanes) return Store(p, a);
  BFloat16 lanes[kLanes];
  Store(lanes, a);
  std::memcpy(p, lanes, static_cast<size_t>(n) * sizeof(BFloat16));
}

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec Reciprocal(Vec a) {
  const __m256 guess = _mm256_rcp_ps(a.v);
  return {_mm256_mul_ps(guess, _mm256_fnmadd_ps(a.v, guess, _mm256_set1_ps(2.0f)))};
}
inline Vec MulAdd(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec MulSub(Vec a, Vec b, Vec c) { return {_mm256_fmsub_ps(a.v, b.v, c.v)}; }
inline Vec NegMulAdd(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
inline Vec Max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec Min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec RoundToInt(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// In four factors, so that each exponent fits a float32 and results may be infinite, subnormal or zero.
inline Vec ScaleByPowerOf2(Vec a, Vec exponent) {
  const __m256i e = _mm256_cvtps_epi32(exponent.v);
  const __m256i quarter = _mm256_srai_epi32(e, 2);
  const __m256i rest = _mm256_sub_epi32(e, _mm256_add_epi32(quarter, _mm256_add_epi32(quarter, quarter)));
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 factor = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(quarter, bias), 23));
  const __m256 last = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  const __m256 most = _mm256_mul_ps(_mm256_mul_ps(_mm256_mul_ps(a.v, factor), factor), factor);
  return {_mm256_mul_ps(most, last)};
}

inline Vec RoundToExponent(Vec x, Vec* n) {
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  const __m256 sum = _mm256_add_ps(x.v, magic);
  n->v = _mm256_sub_ps(sum, magic);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(sum), 23))};
}
inline Vec AddExponentAbove(Vec x, Vec least, Vec p, Vec shift) {
  const __m256i sum = _mm256_add_epi32(_mm256_castps_si256(p.v), _mm256_castps_si256(shift.v));
  return {_mm256_and_ps(_mm256_castsi256_ps(sum), _mm256_cmp_ps(x.v, least.v, _CMP_NLE_UQ))};
}

inline float ReduceAdd(Vec a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float ReduceMax(Vec a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
inline int FirstEqual(Vec a, Vec b) {
  const int equal = _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ));
  return equal == 0 ? -1 : __builtin_ctz(static_cast<unsigned>(equal));
}
inline Vec KeepLanes(Vec a, int64_t begin, int64_t end) {
  const __m256i keep = _mm256_andnot_si256(FirstLanes(begin), FirstLanes(end));
  return {_mm256_blendv_ps(_mm256_set1_ps(-std::numeric_limits<float>::infinity()), a.v, _mm256_castsi256_ps(keep))};
}

inline void StoreSteps(float* p, int64_t columns, Vec even, Vec odd) {
  Store(p, even);
  Store(p + columns, odd);
}
inline void StoreSteps(BFloat16* p, int64_t /*columns*/, Vec even, Vec odd) {
  const __m256i low = _mm256_cvtepu16_epi32(NarrowBits(even));
  const __m256i high = _mm256_slli_epi32(_mm256_cvtepu16_epi32(NarrowBits(odd)), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_or_si256(low, high));
}

struct WordVec {
  __m256i v;
};
inline WordVec LoadWords(const uint32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline Vec Nibble(WordVec a, int i) {
  const __m256i shifted = _mm256_srlv_epi32(a.v, _mm256_set1_epi32(4 * i));
  return {_mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(15)))};
}
inline Vec Byte(WordVec a, int i) {
  const __m256i shifted = _mm256_sllv_epi32(a.v, _mm256_set1_epi32(24 - 8 * i));
  return {_mm256_cvtepi32_ps(_mm256_srai_epi32(shifted, 24))};
}

struct IntVec {
  __m256i v;
};
inline IntVec LoadInts(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline void StoreInts(int32_t* p, IntVec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
inline IntVec operator-(IntVec a, IntVec b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline Vec ToFloat(IntVec a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline void StoreRounded(int8_t* p, Vec a, int8_t zero) {
  const __m256i ints = _mm256_cvtps_epi32(a.v);
  const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1));
  const __m128i codes = _mm_xor_si128(_mm_packs_epi16(shorts, shorts), _mm_set1_epi8(zero));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), codes);
}
inline BFloat16 LargestMagnitude(const BFloat16* p, int64_t count) {
  const __m256i magnitude = _mm256_set1_epi16(0x7fff);
  __m256i largest = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += 16) {
    const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i));
    largest = _mm256_max_epi16(largest, _mm256_and_si256(values, magnitude));
  }
  const __m128i half = _mm_max_epi16(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  // The minimum of what is missing to the largest number there is.
  const __m128i missing = _mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(0x7fff), half));
  return {static_cast<uint16_t>(0x7fff - _mm_extract_epi16(missing, 0))};
}
inline __m256i BroadcastCodes(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm256_set1_epi32(four);
}
#if defined(SWIFTKV_HAS_VNNI)
inline constexpr bool kMovesInputsUp = true;
struct FourVec {
  __m256i v;
};
inline FourVec LoadFours(const int8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline FourVec BroadcastFour(const int8_t* p) { return {BroadcastCodes(p)}; }
inline IntVec DotFours(FourVec x, FourVec w, IntVec sum) {
  // As in simd_avx512-inl.h.
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.v) : "x"(x.v), "x"(w.v));
  return sum;
}
#else
inline constexpr bool kMovesInputsUp = false;
struct FourVec {
  __m256i even, odd;  // as int16
};
inline FourVec WidenFours(__m256i fours) {
  return {_mm256_srai_epi16(_mm256_slli_epi16(fours, 8), 8), _mm256_srai_epi16(fours, 8)};
}
inline FourVec LoadFours(const int8_t* p) {
  return WidenFours(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline FourVec BroadcastFour(const int8_t* p) { return WidenFours(BroadcastCodes(p)); }
inline IntVec DotFours(FourVec x, FourVec w, IntVec sum) {
  const __m256i pairs = _mm256_add_epi32(_mm256_madd_epi16(x.even, w.even), _mm256_madd_epi16(x.odd, w.odd));
  return {_mm256_add_epi32(sum.v, pairs)};
}
#endif

struct NibbleBlock {
  __m256i fours[8];
};
inline NibbleBlock LoadNibbleBlock(const uint32_t* words, int64_t stride) {
  const __m256i mask = _mm256_set1_epi8(15);
  NibbleBlock w;
  SWIFTKV_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i * stride));
    w.fours[2 * i] = _mm256_and_si256(codes, mask);
    w.fours[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi32(codes, 4), mask);
  }
  return w;
}
#if defined(SWIFTKV_HAS_VNNI)
inline IntVec DotBlock(const NibbleBlock& w, const int8_t* x, int32_t /*excess*/) {
  __m256i even = _mm256_setzero_si256();
  __m256i odd = even;
  SWIFTKV_UNROLL
  for (int i = 0; i < 8; i += 2) {
    even = _mm256_dpbusd_avx_epi32(even, w.fours[i], BroadcastCodes(x + 4 * i));
    odd = _mm256_dpbusd_avx_epi32(odd, w.fours[i + 1], BroadcastCodes(x + 4 * i + 4));
  }
  return {_mm256_add_epi32(even, odd)};
}
struct ByteBlock {
  __m256i fours[8];  // moved up by 128
};
inline ByteBlock LoadByteBlock(const uint32_t* words, int64_t stride) {
  ByteBlock w;
  for (int i = 0; i < 8; ++i) {
    w.fours[i] = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i * stride)),
                                  _mm256_set1_epi8(-128));
  }
  return w;
}
inline IntVec DotBlock(const ByteBlock& w, const int8_t* x, int32_t excess) {
  __m256i even = _mm256_set1_epi32(-excess);
  __m256i odd = _mm256_setzero_si256();
  SWIFTKV_UNROLL
  for (int i = 0; i < 8; i += 2) {
    even = _mm256_dpbusd_avx_epi32(even, w.fours[i], BroadcastCodes(x + 4 * i));
    odd = _mm256_dpbusd_avx_epi32(odd, w.fours[i + 1], BroadcastCodes(x + 4 * i + 4));
  }
  return {_mm256_add_epi32(even, odd)};
}
#else
inline IntVec DotBlock(const NibbleBlock& w, const int8_t* x, int32_t /*excess*/) {
  __m256i pairs = _mm256_setzero_si256();  // at most 16 products of 15 and 127: they fit int16
  SWIFTKV_UNROLL
  for (int i = 0; i < 8; ++i) {
    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w.fours[i], BroadcastCodes(x + 4 * i)));
  }
  return {_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))};
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
  IntVec sum = {_mm256_setzero_si256()};
  SWIFTKV_UNROLL
  for (int i = 0; i < 8; ++i) sum = DotFours(BroadcastFour(x + 4 * i), w.fours[i], sum);
  return sum;
}
#endif

inline Vec EvenOfPairs(const BFloat16* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), 16))};
}
inline Vec OddOfPairs(const BFloat16* p) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-65536)))};
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
