// Order without lists: hashes, numbers and permutations that follow from a seed alone.
#ifndef SWIFTKV_DISTILL_PERMUTATION_H_
#define SWIFTKV_DISTILL_PERMUTATION_H_

#include <bit>
#include <cstdint>

namespace swiftkv {

// The last step of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
constexpr uint64_t Mix64(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}
constexpr uint64_t CombineHashes(uint64_t a, uint64_t b) { return Mix64(a ^ Mix64(b + 0x9e3779b97f4a7c15)); }

// Uniform in [0, 1), 53 bits.
constexpr double UnitDraw(uint64_t hash) { return static_cast<double>(Mix64(hash) >> 11) * 0x1.0p-53; }

// A pseudo-random order of 0 .. size - 1 in no memory: a Feistel network over the next even power of two, walked until
// it falls into the range (fewer than four steps on average).
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t key)
      : size_(size), key_(key), half_bits_((std::bit_width(size < 2 ? uint64_t{1} : size - 1) + 1) / 2) {}

  // `index` < size
  uint64_t operator()(uint64_t index) const {
    do index = Shuffle(index);
    while (index >= size_);
    return index;
  }

 private:
  uint64_t Shuffle(uint64_t value) const {
    constexpr uint64_t kRounds = 6;
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = value >> half_bits_;
    uint64_t right = value & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (CombineHashes(key_ + round, right) & mask);
      left = right;
      right = next;
    }
    return (left << half_bits_) | right;
  }

  uint64_t size_;
  uint64_t key_;
  int half_bits_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_PERMUTATION_H_
