// What attention's products are cut into (attention-inl.h).
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kPartitionBlocks = kAttentionPartition / kBlockTokens;
inline constexpr int kVectorsPerBlock = static_cast<int>(kBlockTokens) / kLanes;
inline constexpr int kScoreBlocks = kTileVectors / kVectorsPerBlock;  // blocks that one score tile covers
// A row of scores; score tiles may overshoot the partition's last block.
inline constexpr int64_t kScoreStride = kAttentionPartition + (kScoreBlocks - 1) * kBlockTokens;
// A row of weights, as many cache lines that successive rows don't share the sets of a cache.
inline constexpr int64_t kWeightStride = kAttentionPartition + 32;
// Queries whose products are made together.
#if defined(SWIFTKV_HAS_AMX)
inline constexpr int64_t kMaxQueries = 32;
#else
inline constexpr int64_t kMaxQueries = kTileRows;
#endif

// The blocks of one partition that a tile needs, for one K/V head.
template <class T>
struct PartitionBlocks {
  int64_t first_token = 0;
  int64_t count = 0;
  const T* k[kPartitionBlocks];
  const T* v[kPartitionBlocks];
  // [16 tokens] each, of an INT8 cache
  const float* k_scales[kPartitionBlocks];
  const float* v_scales[kPartitionBlocks];
};

// How many blocks ahead of the products K and V are fetched. A head's part of a block is too short for the hardware to
// see what comes next, and few queries are done with it long before memory has sent the next.
inline constexpr int64_t kBlocksAhead = 8;

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
