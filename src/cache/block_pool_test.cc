#include "cache/block_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace swiftkv {
namespace {

constexpr BlockPool::Prefix kNoPrefix = BlockPool::kNoPrefix;

std::array<int32_t, 16> Block(int32_t first) {
  std::array<int32_t, 16> tokens{};
  for (int32_t i = 0; i < 16; ++i) tokens[static_cast<size_t>(i)] = first + i;
  return tokens;
}

TEST(BlockPoolTest, LendsTheLowestNumberFirstUntilNoneIsLeft) {
  BlockPool pool(4);
  for (int32_t block = 0; block < 4; ++block) EXPECT_EQ(pool.Allocate(), block);
  EXPECT_EQ(pool.free_blocks(), 0);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  for (const int32_t block : {3, 0, 2}) pool.Release(block);
  EXPECT_EQ(pool.free_blocks(), 3);
  EXPECT_EQ(pool.Allocate(), 0);
  EXPECT_EQ(pool.Allocate(), 2);
  EXPECT_EQ(pool.Allocate(), 3);
}

TEST(BlockPoolTest, FreesABlockWithItsLastReference) {
  BlockPool pool(1);
  ASSERT_EQ(pool.Allocate(), 0);
  EXPECT_TRUE(pool.writable(0));
  pool.AddReference(0);
  EXPECT_FALSE(pool.writable(0)) << "two readers";
  pool.Release(0);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  pool.Release(0);
  EXPECT_EQ(pool.Allocate(), 0);
}

TEST(BlockPoolTest, FindsAPublishedChainAndNothingElse) {
  BlockPool pool(4);
  const int32_t first = *pool.Allocate();
  const int32_t second = *pool.Allocate();
  const BlockPool::Prefix one = pool.Publish(kNoPrefix, Block(0), first);
  const BlockPool::Prefix two = pool.Publish(one, Block(100), second);
  EXPECT_NE(one, two);
  EXPECT_FALSE(pool.writable(first)) << "published";
  EXPECT_EQ(pool.Find(kNoPrefix, Block(0))->block, first);
  EXPECT_EQ(pool.Find(one, Block(100))->block, second);
  EXPECT_EQ(pool.Find(one, Block(100))->prefix, two);
  EXPECT_FALSE(pool.Find(kNoPrefix, Block(100)).has_value()) << "the same tokens after another prefix";
  EXPECT_FALSE(pool.Find(one, Block(101)).has_value());
  const int32_t twin = *pool.Allocate();
  EXPECT_EQ(pool.Publish(kNoPrefix, Block(0), twin), one) << "the chain is known already";
  pool.Release(twin);
  EXPECT_EQ(pool.remembered_blocks(), 0) << "the twin was never published";
  EXPECT_EQ(pool.Allocate(), twin);
}

TEST(BlockPoolTest, RemembersUntilThePlaceIsNeededTheLongestUnusedFirst) {
  BlockPool pool(3);
  std::vector<BlockPool::Prefix> prefixes;
  for (int32_t i = 0; i < 3; ++i) {
    prefixes.push_back(pool.Publish(kNoPrefix, Block(100 * i), *pool.Allocate()));
  }
  for (const int32_t block : {1, 0, 2}) pool.Release(block);
  EXPECT_EQ(pool.free_blocks(), 3);
  EXPECT_EQ(pool.remembered_blocks(), 3);
  pool.AddReference(1);  // used again ...
  pool.Release(1);       // ... so 0 is now the oldest
  EXPECT_EQ(pool.Allocate(), 0);
  EXPECT_FALSE(pool.Find(kNoPrefix, Block(0)).has_value());
  EXPECT_EQ(pool.Find(kNoPrefix, Block(100))->block, 1);
  EXPECT_EQ(pool.Allocate(), 2);
  pool.AddReference(1);
  EXPECT_EQ(pool.Allocate(), std::nullopt) << "what is read is never taken";
  EXPECT_EQ(pool.Publish(kNoPrefix, Block(0), 0), prefixes.back() + 1)
      << "a forgotten chain comes back under a new name";
}

// Against a model of it that is slow and obvious.
TEST(BlockPoolTest, CountsHoldUnderRandomUse) {
  std::mt19937 random(7);
  BlockPool pool(12);
  std::map<int32_t, int32_t> references;
  for (int step = 0; step < 20'000; ++step) {
    const auto choice = random() % 4;
    if (choice == 0) {
      const auto block = pool.Allocate();
      ASSERT_EQ(block.has_value(), references.size() < 12);
      if (!block) continue;
      ASSERT_EQ(references.count(*block), 0u) << "lent twice";
      references[*block] = 1;
      if (random() % 2 == 0) pool.Publish(kNoPrefix, Block(static_cast<int32_t>(random() % 8) * 100), *block);
    } else if (choice == 1) {
      const auto match = pool.Find(kNoPrefix, Block(static_cast<int32_t>(random() % 8) * 100));
      if (!match) continue;
      pool.AddReference(match->block);
      ++references[match->block];
    } else if (!references.empty()) {
      auto at = references.begin();
      std::advance(at, random() % references.size());
      pool.Release(at->first);
      if (--at->second == 0) references.erase(at);
    }
    ASSERT_EQ(pool.free_blocks(), 12 - static_cast<int64_t>(references.size()));
    for (const auto& [block, count] : references) ASSERT_EQ(pool.references(block), count);
  }
}

}  // namespace
}  // namespace swiftkv
