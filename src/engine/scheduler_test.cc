#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

namespace swiftkv {
namespace {

KvCache Cache(int64_t blocks) {
  auto cache = KvCache::Create({.groups = 1, .block_bytes = 64}, blocks);
  EXPECT_TRUE(cache.has_value());
  return std::move(*cache);
}

std::unique_ptr<Sequence> MakeSequence(std::vector<int32_t> prompt, int64_t max_tokens, int64_t choices = 1) {
  auto sequence = std::make_unique<Sequence>();
  sequence->max_length = static_cast<int64_t>(prompt.size()) + max_tokens;
  sequence->shareable = static_cast<int64_t>(prompt.size()) - 1;
  sequence->token_ids = std::move(prompt);
  sequence->choices = choices;
  return sequence;
}

std::vector<int32_t> Tokens(int64_t count, int32_t first = 0) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(first + static_cast<int32_t>(i));
  return tokens;
}

// What the engine does with a step: everything planned is computed, finished prompts get a token.
void Compute(const std::vector<Scheduler::Chunk>& chunks) {
  for (const auto& [sequence, tokens] : chunks) {
    sequence->computed += tokens;
    if (sequence->computed == sequence->length()) sequence->token_ids.push_back(7);
  }
}

TEST(SchedulerTest, DecodesComeFirstAndPromptsFillTheBudgetInChunks) {
  KvCache cache = Cache(100);
  Scheduler scheduler({.max_num_batched_tokens = 10, .max_num_seqs = 4}, &cache);
  const auto first = MakeSequence(Tokens(4), 10);
  const auto second = MakeSequence(Tokens(25), 10);
  scheduler.Add(first.get());
  scheduler.Add(second.get());
  const std::vector<std::vector<int64_t>> expected = {{4, 6}, {1, 9}, {1, 9}, {1, 1}, {1, 1}};
  for (const std::vector<int64_t>& tokens : expected) {
    const auto chunks = scheduler.Schedule();
    ASSERT_EQ(chunks.size(), tokens.size());
    EXPECT_EQ(chunks[0].sequence, first.get());
    for (size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(chunks[i].tokens, tokens[i]);
    Compute(chunks);
  }
}

TEST(SchedulerTest, AdmissionWaitsForBlocksAndSeatsInOrder) {
  KvCache cache = Cache(4);
  Scheduler scheduler({.max_num_batched_tokens = 100, .max_num_seqs = 2}, &cache);
  const auto big = MakeSequence(Tokens(20), 12);    // 2 blocks
  const auto bigger = MakeSequence(Tokens(40), 1);  // 3 blocks: must wait
  const auto small = MakeSequence(Tokens(3), 1);    // 1 block, would fit, but came later
  for (Sequence* sequence : {big.get(), bigger.get(), small.get()}) scheduler.Add(sequence);
  EXPECT_EQ(scheduler.Schedule().size(), 1u);
  EXPECT_EQ(scheduler.waiting(), 2);
  scheduler.Remove(big.get(), false);
  EXPECT_EQ(scheduler.Schedule().size(), 2u);
  EXPECT_EQ(scheduler.running(), 2);
  scheduler.Remove(bigger.get(), false);
  scheduler.Remove(small.get(), false);
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(cache.free_blocks(), 4);
}

TEST(SchedulerTest, AKeptSequenceIsSharedInWholeBlocks) {
  KvCache cache = Cache(10);
  Scheduler scheduler({}, &cache);
  const auto first = MakeSequence(Tokens(40), 8);
  scheduler.Add(first.get());
  Compute(scheduler.Schedule());
  const std::vector<int32_t> table = first->block_table;
  scheduler.Remove(first.get(), true);
  EXPECT_EQ(cache.free_blocks(), 7);

  auto other = Tokens(40);
  other[35] = -1;  // two whole blocks in common
  const auto second = MakeSequence(other, 8);
  scheduler.Add(second.get());
  const auto chunks = scheduler.Schedule();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(second->computed, 32);
  EXPECT_EQ(chunks[0].tokens, 8);
  EXPECT_EQ(second->block_table[0], table[0]);
  EXPECT_EQ(second->block_table[1], table[1]);
  EXPECT_NE(second->block_table[2], table[2]);
}

TEST(SchedulerTest, SharingLeavesWhatMustBeComputed) {
  KvCache cache = Cache(10);
  Scheduler scheduler({}, &cache);
  const auto first = MakeSequence(Tokens(32), 8);
  scheduler.Add(first.get());
  Compute(scheduler.Schedule());
  scheduler.Remove(first.get(), true);
  const auto same = MakeSequence(Tokens(32), 8);
  scheduler.Add(same.get());
  scheduler.Schedule();
  EXPECT_EQ(same->computed, 16) << "the last token's logits are wanted, so its block is computed";
  scheduler.Remove(same.get(), true);
  const auto scored = MakeSequence(Tokens(32), 8);
  scored->shareable = 0;
  scheduler.Add(scored.get());
  scheduler.Schedule();
  EXPECT_EQ(scored->computed, 0);
}

TEST(SchedulerTest, KeptBlocksGiveWayWhenTheyAreNeeded) {
  KvCache cache = Cache(4);
  Scheduler scheduler({}, &cache);
  const auto first = MakeSequence(Tokens(40), 8);
  scheduler.Add(first.get());
  Compute(scheduler.Schedule());
  scheduler.Remove(first.get(), true);
  const auto second = MakeSequence(Tokens(60, 1000), 4);
  scheduler.Add(second.get());
  scheduler.Schedule();
  EXPECT_EQ(second->block_table.size(), 4u);
}

// Random arrivals, endings, forks and kept sequences: budgets hold, no block is used twice, none is lost.
TEST(SchedulerTest, InvariantsHoldUnderRandomWork) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    KvCache cache = Cache(24);
    Scheduler scheduler({.max_num_batched_tokens = 32, .max_num_seqs = 6}, &cache);
    std::map<Sequence*, std::unique_ptr<Sequence>> alive;
    int64_t served = 0;
    for (int step = 0; step < 300; ++step) {
      if (random() % 3 == 0) {
        auto sequence = MakeSequence(Tokens(1 + random() % 90, static_cast<int32_t>(random() % 2)), 1 + random() % 30,
                                     1 + random() % 3);
        if (Scheduler::BlocksNeeded(*sequence) <= cache.blocks()) {
          scheduler.Add(sequence.get());
          alive[sequence.get()] = std::move(sequence);
        }
      }
      const auto chunks = scheduler.Schedule();
      ASSERT_EQ(chunks.empty(), scheduler.idle());
      int64_t tokens = 0;
      for (const auto& chunk : chunks) {
        tokens += chunk.tokens;
        ASSERT_GE(chunk.tokens, 1);
        ASSERT_GE(static_cast<int64_t>(chunk.sequence->block_table.size()) * kKvBlockTokens,
                  chunk.sequence->computed + chunk.tokens);
      }
      ASSERT_LE(tokens, 32);
      ASSERT_LE(scheduler.running(), 6);
      // A block that two sequences write to is a bug: blocks beyond the shared prefix belong to one sequence.
      std::map<int32_t, int> writers;
      for (const auto& [sequence, count] : chunks) {
        for (int64_t at = sequence->computed; at < sequence->computed + count; at += 1) {
          if (at == sequence->computed || at % kKvBlockTokens == 0) {
            ASSERT_EQ(++writers[sequence->block_table[static_cast<size_t>(at / kKvBlockTokens)]], 1);
          }
        }
      }
      Compute(chunks);
      for (const auto& chunk : chunks) {
        Sequence* sequence = chunk.sequence;
        if (sequence->computed < sequence->length() - 1) continue;
        while (sequence->choices > 1) {
          auto child = MakeSequence({sequence->token_ids.begin(), sequence->token_ids.end() - 1}, 1);
          child->max_length = sequence->max_length;
          scheduler.Fork(sequence, child.get());
          alive[child.get()] = std::move(child);
        }
        if (sequence->length() < sequence->max_length && random() % 20 != 0) continue;
        ++served;
        scheduler.Remove(sequence, random() % 2 == 0);
        alive.erase(sequence);
      }
    }
    EXPECT_GT(served, 20);
    for (const auto& [sequence, owner] : alive) scheduler.Remove(sequence, false);
    EXPECT_TRUE(scheduler.idle());
    const auto last = MakeSequence(Tokens(24 * 16 - 1, 5000), 1);
    scheduler.Add(last.get());
    while (last->computed < last->length()) {
      for (const auto& chunk : scheduler.Schedule()) chunk.sequence->computed += chunk.tokens;
    }
    scheduler.Remove(last.get(), false);
    EXPECT_EQ(cache.free_blocks(), 24);
  }
}

}  // namespace
}  // namespace swiftkv
