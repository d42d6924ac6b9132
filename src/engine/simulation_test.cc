// Engine, scheduler and cache under deterministic simulation, as FoundationDB and TigerBeetle test theirs: one seed
// makes an episode of arrivals, cancellations, deadlines, priorities, slow readers, failing steps, allocations that
// fail and a cache that is too small, under a clock of its own. After each step everything must add up, whoever is
// first in rank must end soon, and each answer must be the one that the request gets alone.
//
//   SWIFTKV_SIMULATION_REQUESTS=1000000 build/release/engine_simulation_test    requests in all
//   SWIFTKV_SIMULATION_SEED=123 build/release/engine_simulation_test            one episode again
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "engine/engine.h"
#include "engine/stub_model.h"

namespace swiftkv {
namespace {

constexpr int64_t kDefaultRequests = 1'000'000;
constexpr int64_t kRequestsPerEpisode = 250;
// Steps in which a request must end while it is first in rank: some 28 for its prompt and 24 for its answer where the
// budget is smallest, as many for each of two more choices, and some while worse ones' answers take the whole budget.
constexpr int64_t kPatience = 200;
constexpr int64_t kMaxUnread = 12;  // tokens that a client may leave unread; beyond it is cut off, as the server does

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

class Episode {
 public:
  explicit Episode(uint64_t seed) : random_(seed) {
    for (std::vector<int32_t>& text : texts_) {
      for (int i = 0; i < 120; ++i) text.push_back(static_cast<int32_t>(Draw(StubModel::kVocab)));
    }
    scheduler_.max_num_batched_tokens = 4 + Draw(100);
    scheduler_.max_num_seqs = 3 + Draw(12);
    scheduler_.enable_prefix_caching = !Chance(4);
    failures_ = Chance(3);
    auto model = std::make_unique<StubModel>();
    model->before_run = [this](const Step& step) { return BeforeRun(step); };
    auto engine = Engine::Create(std::move(model), nullptr,
                                 {.max_model_len = 160,
                                  .kv_cache_tokens = 160 + 16 * Draw(30),
                                  .scheduler = scheduler_,
                                  .tpot_target_s = Chance(3) ? 0.01 : 0,
                                  .now = [this] { return now_; }});
    engine_ = std::move(*engine);
    alone_ = std::move(*Engine::Create(
        std::make_unique<StubModel>(), nullptr,
        {.max_model_len = 160, .kv_cache_tokens = 1024, .scheduler = {.enable_prefix_caching = false}}));
  }

  // Runs to the end; requests served.
  int64_t Run() {
    const int64_t pressure = 1 + Draw(30);
    while (!testing::Test::HasFailure() && (arrived_ < kRequestsPerEpisode || engine_->HasWork())) {
      while (arrived_ < kRequestsPerEpisode && Draw(40) < pressure) Arrive();
      if (!open_.empty() && Chance(60)) Cancel();
      now_ += std::chrono::milliseconds(1);
      for (const RequestOutput& output : engine_->Step()) Take(output);
      CutOffSlowReaders();
      const Status audit = engine_->Audit();
      EXPECT_TRUE(audit.has_value()) << audit.error().message;
      ++steps_;
      CheckFirstInRank();
    }
    EXPECT_TRUE(open_.empty());
    EXPECT_EQ(engine_->cache().free_blocks(), engine_->cache().blocks());
    return arrived_;
  }

  int64_t preemptions() const { return engine_->stats().num_preemptions; }
  int64_t hits() const { return engine_->stats().prefix_cache_hits; }
  int64_t cut_off() const { return cut_off_; }

 private:
  struct Open {
    Request request;
    std::vector<std::vector<int32_t>> tokens;  // by choice
    std::vector<bool> ended;
    size_t scored = 0;
    int64_t ends = 0;
    int64_t steps_per_read = 0;  // of one token; 0: reads at once
    int64_t unread = 0;
  };

  int64_t Draw(int64_t below) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(below)); }
  bool Chance(int64_t one_in) { return Draw(one_in) == 0; }

  Status BeforeRun(const Step& step) {
    const auto rows = static_cast<int64_t>(step.logit_rows.size());
    const auto tokens = static_cast<int64_t>(step.token_ids.size());
    // A skipping token costs half, and a sixteenth of the other half.
    EXPECT_LE((tokens - rows) * kFullTokenCost * 17 / 32 + rows * kFullTokenCost,
              scheduler_.max_num_batched_tokens * kFullTokenCost);
    EXPECT_LE(static_cast<int64_t>(step.chunks.size()), scheduler_.max_num_seqs);
    now_ += std::chrono::microseconds(100 * tokens);
    if (failures_ && Chance(200)) return ResourceExhausted("no memory for the step");
    if (failures_ && Chance(400)) throw std::bad_alloc();
    return Ok();
  }

  void Arrive() {
    const std::vector<int32_t>& text = texts_[static_cast<size_t>(Draw(4))];
    Request request;
    request.prompt_token_ids.assign(text.begin(), text.begin() + 1 + Draw(110));
    if (Chance(2)) request.prompt_token_ids.back() = static_cast<int32_t>(Draw(StubModel::kVocab));
    request.sampling.temperature = 0;
    request.sampling.max_tokens = Draw(24);
    if (Chance(5)) {  // choices that part ways
      request.sampling.n = static_cast<int32_t>(1 + Draw(3));
      request.sampling.temperature = 1;
      request.sampling.seed = random_();
    }
    if (Chance(8)) request.sampling.prompt_logprobs = 0;
    if (Chance(4)) request.priority = static_cast<int32_t>(Draw(3));
    if (Chance(10)) request.timeout_s = 0.01 * static_cast<double>(1 + Draw(100));
    ++arrived_;
    const auto id = engine_->Add(request);
    ASSERT_TRUE(id.has_value()) << id.error().message;
    const auto choices = static_cast<size_t>(request.sampling.n);
    open_[*id] = {.request = request,
                  .tokens = std::vector<std::vector<int32_t>>(choices),
                  .ended = std::vector<bool>(choices),
                  .steps_per_read = Chance(10) ? 2 + Draw(10) : 0};
  }

  // What a choice gets from an engine that has nothing else to do; greedy ones by the stub's definition.
  std::vector<int32_t> Alone(Request request, size_t choice) {
    if (request.sampling.temperature == 0) return StubModel::Answer(request);
    request.timeout_s = 0;
    auto results = alone_->Generate({std::move(request)});
    return std::move((*results)[0].completions[choice].token_ids);
  }

  void Cancel() {
    auto request = open_.begin();
    std::advance(request, Draw(static_cast<int64_t>(open_.size())));
    engine_->Abort(request->first);
    open_.erase(request);
  }

  // The first in rank goes on with each step, so it must end soon: whoever is not served shows here.
  void CheckFirstInRank() {
    const auto first = std::min_element(open_.begin(), open_.end(), [](const auto& a, const auto& b) {
      return a.second.request.priority < b.second.request.priority;
    });
    if (first == open_.end()) return;
    if (first->first != first_) first_since_ = steps_;
    first_ = first->first;
    EXPECT_LT(steps_ - first_since_, kPatience) << "request " << first_ << " starves";
  }

  void CutOffSlowReaders() {
    for (auto at = open_.begin(); at != open_.end();) {
      const auto request = at++;
      Open& open = request->second;
      if (open.steps_per_read == 0) continue;
      if (open.unread > 0 && steps_ % open.steps_per_read == 0) --open.unread;
      if (open.unread <= kMaxUnread) continue;
      engine_->Abort(request->first);
      open_.erase(request);
      ++cut_off_;
    }
  }

  void Take(const RequestOutput& output) {
    const auto found = open_.find(output.request_id);
    ASSERT_TRUE(found != open_.end()) << "an output after the end";
    Open& open = found->second;
    if (!output.error) {
      ASSERT_TRUE(output.finished);
      ASSERT_TRUE(failures_ || open.request.timeout_s > 0);
      open_.erase(found);
      return;
    }
    const auto choice = static_cast<size_t>(output.index);
    ASSERT_FALSE(open.ended[choice]);
    std::vector<int32_t>& tokens = open.tokens[choice];
    tokens.insert(tokens.end(), output.token_ids.begin(), output.token_ids.end());
    open.unread += static_cast<int64_t>(output.token_ids.size());
    open.scored += output.prompt_logprobs.size();
    if (output.finish_reason) {
      open.ended[choice] = true;
      ++open.ends;
      ASSERT_EQ(tokens, Alone(open.request, choice));
    }
    ASSERT_EQ(output.finished, open.ends == open.request.sampling.n);
    if (!output.finished) return;
    ASSERT_EQ(open.scored, open.request.sampling.prompt_logprobs ? open.request.prompt_token_ids.size() - 1 : 0);
    open_.erase(found);
  }

  std::mt19937_64 random_;
  std::vector<std::vector<int32_t>> texts_ = std::vector<std::vector<int32_t>>(4);
  SchedulerOptions scheduler_;
  bool failures_ = false;
  RequestTimes::Time now_ = RequestTimes::Time() + std::chrono::hours(1);
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Engine> alone_;
  std::map<int64_t, Open> open_;  // by id, so in the order of arrival
  int64_t arrived_ = 0;
  int64_t cut_off_ = 0;
  int64_t steps_ = 0;
  int64_t first_ = -1;  // in rank: by priority, then arrival
  int64_t first_since_ = 0;
};

TEST(EngineSimulationTest, EveryRequestGetsWhatItGetsAlone) {
  SetThreads(1);
  const int64_t one_seed = FromEnvironment("SWIFTKV_SIMULATION_SEED", -1);
  const int64_t requests = FromEnvironment("SWIFTKV_SIMULATION_REQUESTS", kDefaultRequests);
  const int64_t first = one_seed >= 0 ? one_seed : 0;
  int64_t served = 0;
  int64_t preemptions = 0;
  int64_t hits = 0;
  int64_t cut_off = 0;
  for (int64_t seed = first; served < (one_seed >= 0 ? 1 : requests); ++seed) {
    Episode episode(static_cast<uint64_t>(seed));
    served += episode.Run();
    preemptions += episode.preemptions();
    hits += episode.hits();
    cut_off += episode.cut_off();
    ASSERT_FALSE(HasFailure()) << "again with SWIFTKV_SIMULATION_SEED=" << seed;
  }
  RecordProperty("requests", std::to_string(served));
  if (one_seed >= 0) return;
  EXPECT_GT(preemptions, served / 100);
  EXPECT_GT(hits, served);
  EXPECT_GT(cut_off, served / 1000);
}

}  // namespace
}  // namespace swiftkv
