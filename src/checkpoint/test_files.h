// Helpers of this room's tests: folders that vanish, golden files, and safetensors files from a header and data.
#ifndef SWIFTKV_CHECKPOINT_TEST_FILES_H_
#define SWIFTKV_CHECKPOINT_TEST_FILES_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "checkpoint/tensor_source.h"

namespace swiftkv {

inline std::string Golden(const std::string& name) {
  return std::string(SWIFTKV_SOURCE_DIR) + "/tests/golden/checkpoint/" + name;
}

// In memory where the system has such a place: a test that syncs hundreds of files would wait for a disk that others
// use.
inline std::string MemoryTempDir() { return access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : testing::TempDir(); }

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& parent = testing::TempDir()) {
    std::string pattern = parent + "swiftkv_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string Write(const std::string& name, std::string_view content) const {
    const std::filesystem::path file = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    return file.string();
  }

 private:
  std::string path_;
};

// The bytes of a little-endian number.
template <class T>
std::string Bytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

inline std::string SafetensorsBytes(std::string_view header, std::string_view data = "") {
  return Bytes<uint64_t>(header.size()) + std::string(header) + std::string(data);
}

// All values of a tensor; a test failure if it is missing.
inline std::vector<float> Values(const TensorSource& source, const std::string& name) {
  const StoredTensor* tensor = source.Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  std::vector<float> values(tensor->rows() * tensor->columns());
  const Status status = DecodeRows(*tensor, 0, tensor->rows(), values.data());
  EXPECT_TRUE(status) << status.error().message;
  return values;
}

template <class T>
std::string MessageOf(const Result<T>& result) {
  return result ? "no error" : result.error().message;
}

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_TEST_FILES_H_
