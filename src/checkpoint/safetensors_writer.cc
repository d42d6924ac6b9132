#include "checkpoint/safetensors_writer.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "base/durable_folder.h"
#include "base/file_calls.h"
#include "base/printable.h"
#include "checkpoint/encode_values.h"
#include "checkpoint/tensor_table.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

std::string Join(const std::string& folder, const std::string& name) { return (fs::path(folder) / name).string(); }

std::string Dump(const nlohmann::json& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

std::optional<int64_t> BytesOfTensor(const TensorToWrite& tensor, DType dtype) {
  return BytesOf(tensor.dtype.value_or(dtype), tensor.shape);
}

}  // namespace

Result<std::vector<Shard>> PlanShards(const std::vector<TensorToWrite>& tensors,
                                      const SafetensorsWriterOptions& options) {
  std::vector<Shard> shards(1);
  int64_t total = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::optional<int64_t> bytes = BytesOfTensor(tensors[i], options.dtype);
    if (!bytes.has_value() || __builtin_add_overflow(total, *bytes, &total)) {
      return InvalidInput("the tensor {} has an impossible shape", Printable(tensors[i].name));
    }
    if (shards.back().bytes + *bytes > options.max_shard_bytes && !shards.back().tensors.empty()) shards.emplace_back();
    shards.back().tensors.push_back(i);
    shards.back().bytes += *bytes;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name =
        shards.size() == 1 ? kSingleFile : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

Result<SafetensorsWriter> SafetensorsWriter::Create(const std::string& folder, std::vector<TensorToWrite> tensors,
                                                    const SafetensorsWriterOptions& options) {
  SafetensorsWriter writer;
  writer.folder_ = folder;
  writer.tensors_ = std::move(tensors);
  writer.dtype_ = options.dtype;
  if (!IsPlainFloat(options.dtype)) {
    return InvalidInput("{}: checkpoints are written as F16, BF16 or F32, not as {}", folder, Name(options.dtype));
  }
  SWIFTKV_RETURN_IF_ERROR(writer.CheckNames());
  SWIFTKV_ASSIGN_OR_RETURN(writer.shards_, PlanShards(writer.tensors_, options));
  for (const Shard& shard : writer.shards_) writer.total_bytes_ += shard.bytes;
  SWIFTKV_RETURN_IF_ERROR(writer.CheckFolder());
  SWIFTKV_RETURN_IF_ERROR(writer.OpenNextShard());
  return writer;
}

Status SafetensorsWriter::CheckNames() const {
  std::set<std::string_view> names;
  for (const TensorToWrite& tensor : tensors_) {
    if (names.insert(tensor.name).second) continue;
    return InvalidInput("{}: the tensor {} occurs twice", folder_, Printable(tensor.name));
  }
  return Ok();
}

Status SafetensorsWriter::CheckFolder() const {
  SWIFTKV_RETURN_IF_ERROR(MakeFolders(folder_));
  std::error_code error;
  for (const char* name : {kSingleFile, kIndexFile}) {
    if (fs::exists(Join(folder_, name), error)) {
      return InvalidInput("{}: the folder holds a model already ({})", folder_, name);
    }
  }
  const fs::space_info space = fs::space(folder_, error);
  if (!error && space.available < static_cast<uint64_t>(total_bytes_)) {
    return ResourceExhausted("{}: the model needs {} bytes, the disk has {} left", folder_, total_bytes_,
                             space.available);
  }
  return Ok();
}

std::string SafetensorsWriter::Header(const Shard& shard) const {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  int64_t offset = 0;
  for (const size_t i : shard.tensors) {
    const int64_t end = offset + *BytesOfTensor(tensors_[i], dtype_);
    header += fmt::format(R"(,{}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", Dump(tensors_[i].name, -1),
                          Name(tensors_[i].dtype.value_or(dtype_)), Dump(tensors_[i].shape, -1), offset, end);
    offset = end;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // as safetensors does, so that the data are aligned
  return header;
}

Status SafetensorsWriter::OpenNextShard() {
  const Shard& shard = shards_[files_.size()];
  SWIFTKV_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(Join(folder_, shard.name)));
  files_.push_back(std::move(file));
  shard_bytes_left_ = shard.bytes;
  const std::string header = Header(shard);
  const uint64_t header_bytes = header.size();
  SWIFTKV_RETURN_IF_ERROR(files_.back().Append(std::as_bytes(std::span(&header_bytes, 1))));
  return files_.back().Append(header);
}

Status SafetensorsWriter::Append(std::span<const float> values) {
  if (dtype_ == DType::kF32) return AppendBytes(std::as_bytes(values));
  constexpr size_t kPiece = 16384;
  while (!values.empty()) {
    const size_t count = std::min(values.size(), kPiece);
    SWIFTKV_RETURN_IF_ERROR(AppendBytes(EncodeValues(values.first(count), dtype_)));
    values = values.subspan(count);
  }
  return Ok();
}

Status SafetensorsWriter::AppendBytes(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (shard_bytes_left_ == 0) {
      if (files_.size() == shards_.size()) {
        return MakeError(ErrorCode::kInternal, "{}: more values than the tensors have", folder_);
      }
      SWIFTKV_RETURN_IF_ERROR(OpenNextShard());
    }
    const auto count = std::min(bytes.size(), static_cast<size_t>(shard_bytes_left_));
    SWIFTKV_RETURN_IF_ERROR(files_.back().Append(bytes.first(count)));
    shard_bytes_left_ -= static_cast<int64_t>(count);
    bytes = bytes.subspan(count);
  }
  return Ok();
}

std::string SafetensorsWriter::Index() const {
  nlohmann::json index;
  index["metadata"]["total_size"] = total_bytes_;
  for (const Shard& shard : shards_) {
    for (const size_t i : shard.tensors) index["weight_map"][tensors_[i].name] = shard.name;
  }
  return Dump(index, 2) + "\n";
}

Status SafetensorsWriter::Finish() {
  // A last shard whose tensors are all empty has no values that would open it.
  while (shard_bytes_left_ == 0 && files_.size() < shards_.size()) SWIFTKV_RETURN_IF_ERROR(OpenNextShard());
  if (shard_bytes_left_ != 0) return MakeError(ErrorCode::kInternal, "{}: values are missing", folder_);
  Status status;
  size_t committed = 0;
  while (status && committed < files_.size()) {
    status = files_[committed].Commit();
    if (status) ++committed;
  }
  if (status && shards_.size() > 1) status = WriteFile(Join(folder_, kIndexFile), Index());
  if (!status) {
    // What failed may have its name already, though not durably.
    file_calls::Unlink(Join(folder_, kIndexFile).c_str());
    for (size_t i = 0; i < std::min(committed + 1, shards_.size()); ++i) {
      file_calls::Unlink(Join(folder_, shards_[i].name).c_str());
    }
  }
  files_.clear();
  return status;
}

}  // namespace swiftkv
