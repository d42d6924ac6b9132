// The system calls that change files, made in one place, so that tests can make each of them fail in turn
// (base/fault_injector.h). They behave as the calls of their names: -1 and errno where they fail. A call that a signal
// interrupts (EINTR) is repeated.
#ifndef SWIFTKV_BASE_FILE_CALLS_H_
#define SWIFTKV_BASE_FILE_CALLS_H_

#include <sys/types.h>

#include <cstddef>

namespace swiftkv::file_calls {

int Open(const char* path, int flags, mode_t mode = 0);
ssize_t Write(int fd, const void* data, size_t size);  // may write less, as write(2)
int Truncate(int fd, off_t size);
int Sync(int fd);
int Rename(const char* from, const char* to);
int Exchange(const char* one, const char* other);  // renameat2(2)'s RENAME_EXCHANGE: each gets the other's name
int Unlink(const char* path);
int MakeFolder(const char* path);
int RemoveFolder(const char* path);

enum class Kind { kOpen, kWrite, kTruncate, kSync, kRename, kExchange, kUnlink, kMakeFolder, kRemoveFolder };

// A call that is about to be made; fields that it has no use for keep their defaults.
struct Call {
  Kind kind = Kind::kOpen;
  int fd = -1;
  const char* path = nullptr;
  const char* target = nullptr;  // of a rename or an exchange
  const void* data = nullptr;    // of a write
  size_t size = 0;               // of a write; may be made smaller
};

class Observer {
 public:
  virtual ~Observer() = default;
  // 0 lets the call go ahead; anything else is the errno with which it fails.
  virtual int Before(Call* call) = 0;
};

// Tests only; null, as it is in production, ends it. The observer is called in the thread of each call.
void SetObserver(Observer* observer);

}  // namespace swiftkv::file_calls

#endif  // SWIFTKV_BASE_FILE_CALLS_H_
