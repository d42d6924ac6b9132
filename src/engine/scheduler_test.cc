#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <list>
#include <memory>
#include <random>
#include <vector>

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
std::vector<int64_t> Compute(Scheduler* scheduler, const std::vector<Scheduler::Chunk>& chunks) {
  std::vector<int64_t> tokens;
  for (const Scheduler::Chunk& chunk : chunks) tokens.push_back(chunk.tokens);
  scheduler->Complete(chunks);
  for (const Scheduler::Chunk& chunk : chunks) {
    if (chunk.sequence->computed == chunk.sequence->length()) chunk.sequence->token_ids.push_back(7);
  }
  return tokens;
}

TEST(SchedulerTest, DecodesGetTheirTokenAndPromptsTheRestOfTheBudget) {
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
    EXPECT_EQ(Compute(&scheduler, chunks), tokens);
  }
}

TEST(SchedulerTest, TheBudgetIsCostNotTokens) {
  KvCache cache = Cache(100);
  Scheduler scheduler({.max_num_batched_tokens = 100}, &cache);
  const auto prompt = MakeSequence(Tokens(300), 10);
  prompt->skipping_token_cost = kFullTokenCost / 2;
  scheduler.Add(prompt.get());
  EXPECT_EQ(Compute(&scheduler, scheduler.Schedule()), std::vector<int64_t>{200});
  const auto chunks = scheduler.Schedule();
  EXPECT_EQ(Scheduler::Cost(chunks[0]), 99 * kFullTokenCost / 2 + kFullTokenCost) << "the last one goes all the way";
  EXPECT_EQ(Compute(&scheduler, chunks), std::vector<int64_t>{100});
}

TEST(SchedulerTest, ALimitShrinksPromptsButNeverStopsThem) {
  KvCache cache = Cache(100);
  Scheduler scheduler({.max_num_batched_tokens = 100}, &cache);
  const auto answer = MakeSequence(Tokens(5), 10);
  scheduler.Add(answer.get());
  Compute(&scheduler, scheduler.Schedule());
  const auto prompt = MakeSequence(Tokens(200), 10);
  scheduler.Add(prompt.get());
  EXPECT_EQ(Compute(&scheduler, scheduler.Schedule(40 * kFullTokenCost)), (std::vector<int64_t>{1, 40}));
  EXPECT_EQ(Compute(&scheduler, scheduler.Schedule(0)), (std::vector<int64_t>{1, 16}));
}

TEST(SchedulerTest, AdmissionWaitsForBlocksAndSeatsInOrder) {
  KvCache cache = Cache(5);
  Scheduler scheduler({.max_num_batched_tokens = 100, .max_num_seqs = 2}, &cache);
  const auto big = MakeSequence(Tokens(40), 12);          // 3 blocks
  const auto bigger = MakeSequence(Tokens(40, 1000), 1);  // 3 blocks: must wait
  const auto small = MakeSequence(Tokens(3), 1);          // 1 block, would fit, but came later
  for (Sequence* sequence : {big.get(), bigger.get(), small.get()}) scheduler.Add(sequence);
  EXPECT_EQ(scheduler.Schedule().size(), 1u);
  EXPECT_EQ(scheduler.waiting(), 2);
  scheduler.Remove(big.get());
  EXPECT_EQ(scheduler.Schedule().size(), 2u);
  EXPECT_EQ(scheduler.running(), 2);
  scheduler.Remove(bigger.get());
  scheduler.Remove(small.get());
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(cache.free_blocks(), 5);
}

TEST(SchedulerTest, AnEndedSequenceIsSharedInWholeBlocks) {
  KvCache cache = Cache(10);
  Scheduler scheduler({}, &cache);
  const auto first = MakeSequence(Tokens(40), 8);
  scheduler.Add(first.get());
  Compute(&scheduler, scheduler.Schedule());
  const std::vector<int32_t> table = first->block_table;
  scheduler.Remove(first.get());
  EXPECT_EQ(cache.free_blocks(), 10);
  EXPECT_EQ(cache.pool().remembered_blocks(), 2);

  auto other = Tokens(40);
  other[35] = -1;  // two whole blocks in common
  const auto second = MakeSequence(other, 8);
  scheduler.Add(second.get());
  const auto chunks = scheduler.Schedule();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(second->computed, 32);
  EXPECT_EQ(second->cached_tokens, 32);
  EXPECT_EQ(chunks[0].tokens, 8);
  EXPECT_EQ(second->block_table[0], table[0]);
  EXPECT_EQ(second->block_table[1], table[1]);
}

TEST(SchedulerTest, SharingLeavesWhatMustBeComputed) {
  KvCache cache = Cache(10);
  Scheduler scheduler({}, &cache);
  const auto first = MakeSequence(Tokens(32), 8);
  scheduler.Add(first.get());
  Compute(&scheduler, scheduler.Schedule());
  scheduler.Remove(first.get());
  const auto same = MakeSequence(Tokens(32), 8);
  scheduler.Add(same.get());
  scheduler.Schedule();
  EXPECT_EQ(same->computed, 16) << "the last token's logits are wanted, so its block is computed";
  scheduler.Remove(same.get());
  const auto scored = MakeSequence(Tokens(32), 8);
  scored->shareable = 0;
  scheduler.Add(scored.get());
  scheduler.Schedule();
  EXPECT_EQ(scored->computed, 0);
}

TEST(SchedulerTest, RememberedBlocksGiveWayWhenTheyAreNeeded) {
  KvCache cache = Cache(4);
  Scheduler scheduler({}, &cache);
  const auto first = MakeSequence(Tokens(40), 8);
  scheduler.Add(first.get());
  Compute(&scheduler, scheduler.Schedule());
  scheduler.Remove(first.get());
  const auto second = MakeSequence(Tokens(60, 1000), 4);
  scheduler.Add(second.get());
  scheduler.Schedule();
  EXPECT_EQ(second->block_table.size(), 4u);
  EXPECT_EQ(cache.pool().remembered_blocks(), 0);
}

TEST(SchedulerTest, TheLastInRankGivesItsBlocksBackAndIsComputedAgain) {
  KvCache cache = Cache(4);
  Scheduler scheduler({.enable_prefix_caching = false}, &cache);
  const auto first = MakeSequence(Tokens(16), 40);
  const auto second = MakeSequence(Tokens(14), 20);
  scheduler.Add(first.get());
  Compute(&scheduler, scheduler.Schedule());
  scheduler.Add(second.get());
  while (scheduler.counters().preemptions == 0) Compute(&scheduler, scheduler.Schedule());
  EXPECT_EQ(first->block_table.size(), 3u);
  EXPECT_EQ(second->computed, 0);
  EXPECT_EQ(scheduler.waiting(), 1);
  const int64_t length = second->length();
  scheduler.Remove(first.get());
  const auto chunks = scheduler.Schedule();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].tokens, length) << "prompt and output so far";
}

TEST(SchedulerTest, AForkCopiesThePartialBlockAndSharesTheRest) {
  KvCache cache = Cache(10);
  Scheduler scheduler({}, &cache);
  const auto parent = MakeSequence(Tokens(20), 10, /*choices=*/2);
  scheduler.Add(parent.get());
  scheduler.Complete(scheduler.Schedule());
  const auto child = MakeSequence(Tokens(20), 10);
  scheduler.Fork(parent.get(), child.get());
  parent->token_ids.push_back(7);
  EXPECT_EQ(child->computed, 19);
  EXPECT_EQ(child->block_table, parent->block_table);
  EXPECT_EQ(Compute(&scheduler, scheduler.Schedule()), (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(child->block_table[0], parent->block_table[0]);
  EXPECT_NE(child->block_table[1], parent->block_table[1]);
  scheduler.Remove(parent.get());
  scheduler.Remove(child.get());
  EXPECT_EQ(cache.free_blocks(), 10);
}

TEST(SchedulerTest, ABetterPriorityTakesTheSeatOfAWorseOne) {
  KvCache cache = Cache(20);
  Scheduler scheduler({.max_num_seqs = 1}, &cache);
  const auto patient = MakeSequence(Tokens(20), 10);
  patient->priority = 5;
  const auto urgent = MakeSequence(Tokens(30, 1000), 10);
  scheduler.Add(patient.get());
  Compute(&scheduler, scheduler.Schedule());
  scheduler.Add(urgent.get());
  const auto chunks = scheduler.Schedule();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].sequence, urgent.get());
  EXPECT_EQ(patient->computed, 0);
}

// Without a seat or blocks to fight for: the budget is enough to rank by.
TEST(SchedulerTest, ABetterPrioritysPromptDoesNotWaitForTheEndOfAWorseOnes) {
  KvCache cache = Cache(100);
  Scheduler scheduler({.max_num_batched_tokens = 32}, &cache);
  const auto answering = MakeSequence(Tokens(8, 5000), 100);
  answering->priority = 9;
  const auto patient = MakeSequence(Tokens(500), 10);
  patient->priority = 5;
  scheduler.Add(answering.get());
  Compute(&scheduler, scheduler.Schedule());
  scheduler.Add(patient.get());
  Compute(&scheduler, scheduler.Schedule());
  const auto equal = MakeSequence(Tokens(10, 4000), 10);
  equal->priority = 5;
  const auto urgent = MakeSequence(Tokens(40, 1000), 10);
  const auto second = MakeSequence(Tokens(4, 2000), 10);
  for (Sequence* sequence : {equal.get(), urgent.get(), second.get()}) scheduler.Add(sequence);

  auto chunks = scheduler.Schedule();
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0].sequence, urgent.get());
  EXPECT_EQ(chunks[1].sequence, answering.get());
  EXPECT_EQ(Compute(&scheduler, chunks), (std::vector<int64_t>{31, 1}));
  chunks = scheduler.Schedule();
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_EQ(chunks[1].sequence, second.get());
  EXPECT_EQ(chunks[2].sequence, patient.get()) << "before its equal that came later";
  EXPECT_EQ(Compute(&scheduler, chunks), (std::vector<int64_t>{9, 4, 18, 1}));
  EXPECT_EQ(scheduler.counters().preemptions, 0);
}

// Sequences of three priorities that come at random, and the steps that compute them.
class RandomSchedule {
 public:
  explicit RandomSchedule(uint64_t seed) : random_(seed) {}

  void Run(int64_t steps) {
    for (int64_t step = 0; step < steps; ++step) {
      if (Draw(3) == 0) Arrive();
      const int64_t preemptions = scheduler_.counters().preemptions;
      const auto chunks = scheduler_.Schedule(Draw(2) == 0 ? Scheduler::kNoLimit : Draw(40) * kFullTokenCost);
      // A step that takes blocks back has fewer than anybody sees after it.
      if (scheduler_.counters().preemptions == preemptions) CheckPrompts(chunks);
      Compute(&scheduler_, chunks);
      std::erase_if(open_, [&](const auto& sequence) {
        if (sequence->length() < sequence->max_length) return false;
        scheduler_.Remove(sequence.get());
        return true;
      });
    }
  }

  int64_t checked() const { return checked_; }

 private:
  int64_t Draw(int64_t below) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(below)); }

  void Arrive() {
    open_.push_back(MakeSequence(Tokens(1 + Draw(110), static_cast<int32_t>(Draw(4)) * 1000), 1 + Draw(24)));
    open_.back()->priority = static_cast<int32_t>(Draw(3));
    open_.back()->skipping_token_cost = kFullTokenCost / (1 + Draw(2));
    scheduler_.Add(open_.back().get());
  }

  // No prompt is computed while one of a better priority waits for which there is room.
  void CheckPrompts(const std::vector<Scheduler::Chunk>& chunks) {
    const Sequence* first = nullptr;  // of those that wait
    for (const auto& sequence : open_) {
      const bool waits = sequence->block_table.empty();
      if (waits && (first == nullptr || sequence->priority < first->priority)) first = sequence.get();
    }
    if (first == nullptr || scheduler_.running() == options_.max_num_seqs) return;
    const int64_t blocks = (first->length() + kKvBlockTokens - 1) / kKvBlockTokens;
    if (cache_.free_blocks() < blocks + scheduler_.running()) return;
    int64_t worse = 0;
    for (const Scheduler::Chunk& chunk : chunks) {
      const bool is_prompt = chunk.sequence->length() - chunk.sequence->computed > 1;
      if (is_prompt && chunk.sequence->priority > first->priority) worse += Scheduler::Cost(chunk);
    }
    EXPECT_LT(worse, kFullTokenCost) << "it would have paid for the better one's first token";
    ++checked_;
  }

  std::mt19937_64 random_;
  SchedulerOptions options_ = {.max_num_batched_tokens = 4 + Draw(100), .max_num_seqs = 2 + Draw(12)};
  KvCache cache_ = Cache(9 + Draw(60));
  Scheduler scheduler_{options_, &cache_};
  std::list<std::unique_ptr<Sequence>> open_;  // in the order of arrival
  int64_t checked_ = 0;
};

TEST(SchedulerTest, NoPromptIsComputedWhileABetterOneWaits) {
  int64_t checked = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    RandomSchedule schedule(seed);
    schedule.Run(200);
    checked += schedule.checked();
    ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed;
  }
  EXPECT_GT(checked, 1000);
}

// The cache is full, the parent's last block is shared with its child: once that gives way there is nothing to copy.
TEST(SchedulerTest, TheFirstInRankGoesOnWhenWhoSharesItsBlockGivesWay) {
  KvCache cache = Cache(4);
  Scheduler scheduler({.enable_prefix_caching = false}, &cache);
  const auto parent = MakeSequence(Tokens(56), 4, /*choices=*/2);
  scheduler.Add(parent.get());
  scheduler.Complete(scheduler.Schedule());
  const auto child = MakeSequence(Tokens(56), 4);
  scheduler.Fork(parent.get(), child.get());
  parent->token_ids.push_back(7);
  const auto chunks = scheduler.Schedule();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].sequence, parent.get());
  EXPECT_EQ(chunks[0].tokens, 1);
  EXPECT_EQ(child->computed, 0);
  EXPECT_EQ(scheduler.counters().preemptions, 1);
  EXPECT_TRUE(scheduler.Audit().has_value());
}

TEST(SchedulerTest, LookupsAreCountedOnceAndOnlyWithACache) {
  for (const bool enabled : {false, true}) {
    KvCache cache = Cache(4);
    Scheduler scheduler({.enable_prefix_caching = enabled}, &cache);
    const auto first = MakeSequence(Tokens(16), 40);
    const auto second = MakeSequence(Tokens(14, 100), 20);
    scheduler.Add(first.get());
    scheduler.Add(second.get());
    while (scheduler.counters().preemptions == 0) Compute(&scheduler, scheduler.Schedule());
    scheduler.Remove(first.get());
    Compute(&scheduler, scheduler.Schedule());
    EXPECT_GT(second->computed, 0) << "admitted again";
    EXPECT_EQ(scheduler.counters().prefix_cache_queries, enabled ? 30 : 0);
  }
}

TEST(SchedulerTest, NobodyMakesWayForAPrefixThatIsThere) {
  KvCache cache = Cache(8);
  Scheduler scheduler({}, &cache);
  const auto patient = MakeSequence(Tokens(64), 10);  // 4 blocks, of 8
  patient->priority = 5;
  scheduler.Add(patient.get());
  Compute(&scheduler, scheduler.Schedule());
  const auto urgent = MakeSequence(Tokens(65), 10);  // 5 blocks, 4 of them the same
  scheduler.Add(urgent.get());
  EXPECT_EQ(Compute(&scheduler, scheduler.Schedule()), (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(scheduler.counters().preemptions, 0);
}

}  // namespace
}  // namespace swiftkv
