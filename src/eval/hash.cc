#include "eval/hash.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "base/file.h"

namespace swiftkv {
namespace {

class Hasher {
 public:
  Hasher() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void Update(std::span<const std::byte> bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }
  void Update(std::string_view text) { Update(std::as_bytes(std::span(text))); }
  std::string Finish() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(), digest, &size);
    std::string text;
    for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

Result<std::vector<std::string>> ModelFilesOf(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return std::vector<std::string>{path};
  std::vector<std::string> files;
  for (auto entry = std::filesystem::directory_iterator(path, error); !error && entry != end(entry);
       entry.increment(error)) {
    const std::string extension = entry->path().extension();
    if (extension == ".json" || extension == ".safetensors" || entry->path().filename() == "chat_template.jinja") {
      files.push_back(entry->path());
    }
  }
  if (error) return IoError("{}: {}", path, error.message());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::string Sha256(std::string_view bytes) {
  Hasher hasher;
  hasher.Update(bytes);
  return hasher.Finish();
}

Result<std::string> HashModel(const std::string& path) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<std::string> files, ModelFilesOf(path));
  Hasher hasher;
  for (const std::string& name : files) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> file, MappedFile::Open(name));
    // The name and size keep one file's bytes apart from the next one's. A single file has its plain checksum.
    if (files.size() > 1) {
      hasher.Update(fmt::format("{} {}\n", std::filesystem::path(name).filename().string(), file->bytes().size()));
    }
    hasher.Update(file->bytes());
    SWIFTKV_RETURN_IF_ERROR(file->Check());
    file->Release(file->bytes());
  }
  return hasher.Finish();
}

}  // namespace swiftkv
