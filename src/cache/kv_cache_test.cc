#include "cache/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace swiftkv {
namespace {

const KvLayout kLayout = {.groups = 3, .block_bytes = 256};

bool IsZero(const KvCache& cache, int64_t group, int32_t block) {
  const std::byte* data = cache.Group(group) + block * cache.layout().block_bytes;
  return std::all_of(data, data + cache.layout().block_bytes, [](std::byte b) { return b == std::byte{0}; });
}

void Fill(KvCache* cache, int32_t block) {
  for (int64_t group = 0; group < cache->layout().groups; ++group) {
    std::memset(cache->Group(group) + block * cache->layout().block_bytes, 0xff,
                static_cast<size_t>(cache->layout().block_bytes));
  }
}

TEST(KvCacheTest, ClearsAndCopiesOneBlockInEveryGroup) {
  auto cache = KvCache::Create(kLayout, 3);
  ASSERT_TRUE(cache.has_value());
  for (int32_t block = 0; block < 3; ++block) {
    for (int64_t group = 0; group < 3; ++group) EXPECT_TRUE(IsZero(*cache, group, block));
    Fill(&*cache, block);
  }
  cache->Clear(1);
  for (int64_t group = 0; group < 3; ++group) {
    EXPECT_FALSE(IsZero(*cache, group, 0));
    EXPECT_TRUE(IsZero(*cache, group, 1));
    EXPECT_FALSE(IsZero(*cache, group, 2));
  }
  cache->Copy(1, 2);
  for (int64_t group = 0; group < 3; ++group) {
    EXPECT_FALSE(IsZero(*cache, group, 0));
    EXPECT_TRUE(IsZero(*cache, group, 2));
  }
}

TEST(KvCacheTest, CountsBytesPerTokenOverAllGroups) {
  auto cache = KvCache::Create(kLayout, 2);
  ASSERT_TRUE(cache.has_value());
  EXPECT_EQ(cache->bytes_per_token(), 3 * 256 / kKvBlockTokens);
  EXPECT_EQ(cache->Group(1) - cache->Group(0), 2 * 256);
}

TEST(KvCacheTest, RefusesTheImpossibleWithASentence) {
  EXPECT_EQ(KvCache::Create({.groups = 0, .block_bytes = 256}, 4).error().code, ErrorCode::kInvalidInput);
  EXPECT_EQ(KvCache::Create(kLayout, 0).error().code, ErrorCode::kInvalidInput);
  EXPECT_EQ(KvCache::Create(kLayout, int64_t{1} << 31).error().code, ErrorCode::kInvalidInput);
  EXPECT_EQ(KvCache::Create({.groups = int64_t{1} << 40, .block_bytes = int64_t{1} << 40}, 4).error().code,
            ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace swiftkv
