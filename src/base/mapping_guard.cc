#include "base/mapping_guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <vector>

namespace swiftkv {
namespace {

uintptr_t PageSize() {
  static const auto kSize = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return kSize;
}

// A signal handler may not wait for a mutex. It may spin here: whoever holds the lock touches no mapping, so the
// handler never interrupts the holder, and the holder goes on.
class SpinLock {
 public:
  void lock() {
    while (flag_.test_and_set(std::memory_order_acquire)) {
    }
  }
  void unlock() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag flag_;
};

struct Registry {
  SpinLock lock;
  std::vector<MappingGuard*> guards;
  struct sigaction previous = {};
};

// Never destroyed: signals come until the process ends.
Registry& Guards() {
  static auto* const kRegistry = new Registry();
  return *kRegistry;
}

bool ReplaceWithZeros(uintptr_t address) {
  Registry& registry = Guards();
  const std::lock_guard hold(registry.lock);
  return std::any_of(registry.guards.begin(), registry.guards.end(),
                     [&](MappingGuard* guard) { return guard->Replace(address); });
}

void OnBusError(int signal, siginfo_t* info, void* /*context*/) {
  const int saved = errno;
  // Only the kernel tells an address, and only a read of ours can be what raised the signal.
  if (info->si_code == BUS_ADRERR && ReplaceWithZeros(reinterpret_cast<uintptr_t>(info->si_addr))) {
    errno = saved;
    return;
  }
  sigaction(signal, &Guards().previous, nullptr);
  if (info->si_code <= 0) raise(signal);  // sent by a process; a fault comes again by itself
  errno = saved;
}

void InstallHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    PageSize();
    struct sigaction action = {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &Guards().previous);
  });
}

}  // namespace

MappingGuard::MappingGuard(const void* data, size_t size)
    : begin_(reinterpret_cast<uintptr_t>(data)), end_((begin_ + size + PageSize() - 1) / PageSize() * PageSize()) {
  InstallHandler();
  const std::lock_guard hold(Guards().lock);
  Guards().guards.push_back(this);
}

MappingGuard::~MappingGuard() {
  const std::lock_guard hold(Guards().lock);
  std::erase(Guards().guards, this);
}

bool MappingGuard::Replace(uintptr_t address) {
  if (address < begin_ || address >= end_) return false;
  failed_.store(true, std::memory_order_release);
  const uintptr_t from = address / PageSize() * PageSize();
  // POSIX does not list mmap for signal handlers; on Linux it is a plain system call.
  return mmap(reinterpret_cast<void*>(from), end_ - from, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
         MAP_FAILED;
}

}  // namespace swiftkv
