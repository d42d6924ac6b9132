#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/printable.h"
#include "checkpoint/compressed_tensors.h"
#include "checkpoint/folder.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_table.h"

namespace swiftkv {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 10000;

Result<std::vector<StoredTensor>> ReadFileTensors(const std::string& path) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> file, MappedFile::Open(path));
  Result<std::vector<StoredTensor>> tensors = ParseSafetensors(file->bytes(), path);
  SWIFTKV_RETURN_IF_ERROR(file->Check());
  if (!tensors) return tensors;
  for (StoredTensor& tensor : *tensors) tensor.file = file;
  return tensors;
}

// Receives {"metadata": ..., "weight_map": {"tensor": "shard", ...}} and keeps the weight map alone.
class IndexReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::map<std::string, std::string> weight_map;
  std::string error = "not valid JSON";

  bool key(std::string& name) override {
    if (depth_ == 1) in_weight_map_ = name == "weight_map";
    key_ = name;
    return true;
  }
  bool start_object(std::size_t) override { return ++depth_ <= 2 || Accept(); }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override { return Accept(); }
  bool end_array() override { return true; }
  bool string(std::string& value) override {
    if (depth_ != 2 || !in_weight_map_) return true;
    if (weight_map.emplace(key_, value).second) return true;
    error = "weight_map names the tensor " + Printable(key_) + " twice";
    return false;
  }
  bool number_unsigned(uint64_t) override { return Accept(); }
  bool number_integer(int64_t) override { return Accept(); }
  bool number_float(double, const std::string&) override { return Accept(); }
  bool null() override { return Accept(); }
  bool boolean(bool) override { return Accept(); }
  bool binary(nlohmann::json::binary_t&) override { return Accept(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  // Anything goes outside of the weight map, nothing but strings within.
  bool Accept() {
    if (in_weight_map_) error = "weight_map must map tensor names to file names";
    return !in_weight_map_;
  }

  int depth_ = 0;
  bool in_weight_map_ = false;
  std::string key_;
};

Result<std::vector<StoredTensor>> ReadShards(const std::string& folder, const std::string& index_path) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path, kMaxIndexBytes));
  SWIFTKV_ASSIGN_OR_RETURN(const auto weight_map, ParseSafetensorsIndex(text, index_path));
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  if (shards.size() > kMaxShards) {
    return InvalidInput("{}: {} shards, the limit is {}", index_path, shards.size(), kMaxShards);
  }
  std::vector<StoredTensor> tensors;
  std::set<std::pair<std::string_view, std::string_view>> found;  // (tensor, shard)
  for (const std::string& shard : shards) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::string path, FileInFolder(folder, shard));
    SWIFTKV_ASSIGN_OR_RETURN(std::vector<StoredTensor> part, ReadFileTensors(path));
    for (StoredTensor& tensor : part) {
      const auto entry = weight_map.find(tensor.name);
      if (entry != weight_map.end()) found.emplace(entry->first, shard);
      tensors.push_back(std::move(tensor));
    }
  }
  for (const auto& [tensor, shard] : weight_map) {
    if (!found.contains({tensor, shard})) {
      return InvalidInput("{}: {} does not hold the tensor {}", index_path, Printable(shard), Printable(tensor));
    }
  }
  return tensors;
}

Result<std::vector<StoredTensor>> ReadFolder(const std::string& folder) {
  const Result<std::string> single = FileInFolder(folder, kSingleFile);
  if (single) return ReadFileTensors(*single);
  if (single.error().code != ErrorCode::kNotFound) return tl::unexpected(single.error());
  const Result<std::string> index = FileInFolder(folder, kIndexFile);
  if (index) return ReadShards(folder, *index);
  if (index.error().code != ErrorCode::kNotFound) return tl::unexpected(index.error());
  return NotFound("{}: there is neither {} nor {}", folder, kSingleFile, kIndexFile);
}

}  // namespace

Result<std::map<std::string, std::string>> ParseSafetensorsIndex(std::string_view text, const std::string& origin) {
  IndexReader index;
  if (!nlohmann::json::sax_parse(text, &index)) return InvalidInput("{}: {}", origin, index.error);
  if (index.weight_map.empty()) return InvalidInput("{}: weight_map is missing or empty", origin);
  return std::move(index.weight_map);
}

Result<std::unique_ptr<TensorSource>> MakeSafetensorsSource(std::vector<StoredTensor> tensors,
                                                            const std::string& origin) {
  SWIFTKV_RETURN_IF_ERROR(AttachScales(&tensors, origin));
  return TensorTable::Create(std::move(tensors), origin);
}

Result<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& path) {
  std::error_code error;
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<StoredTensor> tensors,
                           std::filesystem::is_directory(path, error) ? ReadFolder(path) : ReadFileTensors(path));
  return MakeSafetensorsSource(std::move(tensors), path);
}

}  // namespace swiftkv
