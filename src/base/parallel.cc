#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <system_error>
#include <thread>

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int>& ThreadCount() {
  static std::atomic<int> count{AvailableCores()};
  return count;
}

// About the gap between two operations of a step and what it costs to wake a thread; measured in
// docs/decisions/0011-threads.md.
constexpr std::chrono::microseconds kSpin{50};

// Spins until `done` or for kSpin. True: done.
template <class Done>
bool SpinUntil(const Done& done) {
  constexpr int kLooksPerClock = 32;
  const Clock::time_point end = Clock::now() + kSpin;
  do {
    for (int look = 0; look < kLooksPerClock; ++look) {
      if (done()) return true;
      __builtin_ia32_pause();
    }
  } while (Clock::now() < end);
  return done();
}

// Signals of the outside go to threads that can act on them: a read that waits for a line must be interrupted.
class BlockSignals {
 public:
  BlockSignals() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (const int own_fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&blocked, own_fault);
    pthread_sigmask(SIG_BLOCK, &blocked, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_ = {};
};

// One job at a time. A worker joins a job by taking one of its places while the job is open. The caller works too;
// when no index is left it closes the job and waits for the workers that have joined, and for no others.
class Pool {
 public:
  // Does the job, or nothing and returns false if the pool has another one.
  bool Run(int64_t count, parallel_internal::Body body, const void* context) {
    const std::unique_lock<std::mutex> hold(busy_, std::try_to_lock);
    if (!hold) return false;
    const auto places = static_cast<uint32_t>(std::min<int64_t>(Threads(), count)) - 1;
    StartWorkers(static_cast<int>(places));
    body_ = body;
    context_ = context;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    state_.store(kOpen | places * kPlace, std::memory_order_release);
    jobs_.fetch_add(1, std::memory_order_seq_cst);
    jobs_.notify_all();
    Work();
    Close();
    return true;
  }

 private:
  // state_: the workers in the job, the places left in it, and whether it is open.
  static constexpr uint32_t kWorkers = 0x7fff;
  static constexpr uint32_t kPlace = 0x8000;
  static constexpr uint32_t kPlaces = 0x7fff8000;
  static constexpr uint32_t kOpen = 0x80000000;
  static_assert(kMaxThreads <= kWorkers);

  void StartWorkers(int wanted) {
    if (workers_ >= wanted) return;
    const BlockSignals block;
    try {
      for (; workers_ < wanted; ++workers_) std::thread(&Pool::Serve, this).detach();
    } catch (const std::system_error&) {  // no more threads to be had: those there are do the work
    }
  }

  void Work() {
    working_ = true;
    for (int64_t index = next_.fetch_add(1, std::memory_order_relaxed); index < count_;
         index = next_.fetch_add(1, std::memory_order_relaxed)) {
      body_(context_, index);
    }
    working_ = false;
  }

  void Close() {
    uint32_t state = state_.fetch_and(~kOpen, std::memory_order_acq_rel);
    const auto left = [&] {
      state = state_.load(std::memory_order_acquire);
      return (state & kWorkers) == 0;
    };
    if (SpinUntil(left)) return;
    while (!left()) state_.wait(state, std::memory_order_acquire);
  }

  bool Join() {
    uint32_t state = state_.load(std::memory_order_relaxed);
    while ((state & kOpen) != 0 && (state & kPlaces) != 0) {
      if (state_.compare_exchange_weak(state, state - kPlace + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }

  void Leave() {
    const uint32_t before = state_.fetch_sub(1, std::memory_order_acq_rel);
    if ((before & kOpen) == 0 && (before & kWorkers) == 1) state_.notify_one();
  }

  [[noreturn]] void Serve() {
    uint32_t seen = jobs_.load(std::memory_order_acquire) - 1;  // the job that it was started for may be open
    while (true) {
      if (!SpinUntil([&] { return jobs_.load(std::memory_order_acquire) != seen; })) {
        jobs_.wait(seen, std::memory_order_acquire);
      }
      seen = jobs_.load(std::memory_order_acquire);
      if (!Join()) continue;
      Work();
      Leave();
    }
  }

  static thread_local bool working_;  // in a body

  std::mutex busy_;
  int workers_ = 0;
  parallel_internal::Body body_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0;
  alignas(64) std::atomic<int64_t> next_ = 0;
  alignas(64) std::atomic<uint32_t> state_ = 0;
  alignas(64) std::atomic<uint32_t> jobs_ = 0;  // begun so far

  friend void parallel_internal::Run(int64_t count, parallel_internal::Body body, const void* context) noexcept;
};

thread_local bool Pool::working_ = false;

// Never destroyed: workers use it until the process ends. A child process begins with a new one, as its parent's
// workers are not in it.
std::atomic<Pool*> g_pool = nullptr;

Pool& ThePool() {
  static std::once_flag once;
  std::call_once(once, [] {
    g_pool = new Pool();
    pthread_atfork(nullptr, nullptr, [] { g_pool = new Pool(); });
  });
  return *g_pool.load(std::memory_order_acquire);
}

}  // namespace

int AvailableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::clamp(CPU_COUNT(&set), 1, kMaxThreads);
}

int Threads() { return ThreadCount().load(std::memory_order_relaxed); }
void SetThreads(int threads) { ThreadCount().store(std::clamp(threads, 1, kMaxThreads), std::memory_order_relaxed); }

namespace parallel_internal {

void Run(int64_t count, Body body, const void* context) noexcept {
  if (!Pool::working_ && ThePool().Run(count, body, context)) return;
  for (int64_t index = 0; index < count; ++index) body(context, index);
}

}  // namespace parallel_internal
}  // namespace swiftkv
