#include "model/checkpoint_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "base/durable_folder.h"
#include "base/file.h"
#include "checkpoint/encode_values.h"
#include "checkpoint/folder.h"
#include "checkpoint/json_file.h"
#include "checkpoint/safetensors_writer.h"
#include "model/swiftkv_config.h"
#include "model/swiftkv_transform.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxCopiedBytes = 256 << 20;
constexpr int64_t kRowsPerPiece = 1024;

// What a Hugging Face folder holds beside config and weights.
constexpr std::array kCompanionFiles = {"generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "LICENSE",
                                        "LICENSE.txt",
                                        "NOTICE"};

// Whether a tensor is a projection's matrix, which compressed-tensors calls "Linear".
bool IsProjection(const std::string& name) {
  return name.ends_with("_proj.weight") || name.ends_with("_swiftkv.weight");
}

// A checkpoint's tensors on their way to the disk.
class TensorsOutput {
 public:
  TensorsOutput(const OutputOptions& options, DType dtype) : options_(options), dtype_(dtype) {}

  Status Add(const TensorSource& source, const BaseTensor& tensor);
  Status Write(const std::string& folder) const;

 private:
  bool IsQuantized(const StoredTensor& tensor) const {
    return options_.quantization && tensor.shape.size() == 2 && IsProjection(tensor.name);
  }
  DType DTypeOf(const StoredTensor& tensor) const;
  DType scale_dtype() const { return dtype_ == DType::kF16 ? DType::kF32 : dtype_; }
  Status WriteTensor(const StoredTensor& tensor, SafetensorsWriter* writer) const;

  const OutputOptions& options_;
  DType dtype_;
  std::vector<const StoredTensor*> tensors_;
};

Status TensorsOutput::Add(const TensorSource& source, const BaseTensor& tensor) {
  const StoredTensor* stored = source.Find(tensor.name);
  if (stored == nullptr) return NotFound("{}: the checkpoint has no such tensor", source.Place(tensor.name));
  if (stored->shape != tensor.shape) {
    return InvalidInput("{}: another shape than config.json says", source.Place(tensor.name));
  }
  tensors_.push_back(stored);
  return Ok();
}

// What the file has as numbers keeps its type. Blocks and codes get the checkpoint's, but not F16: rounded to it first,
// they would not be the BF16 that they are computed with.
DType TensorsOutput::DTypeOf(const StoredTensor& tensor) const {
  if (IsPlainFloat(tensor.dtype)) return tensor.dtype;
  return dtype_ == DType::kF16 ? DType::kBF16 : dtype_;
}

Status TensorsOutput::WriteTensor(const StoredTensor& tensor, SafetensorsWriter* writer) const {
  if (IsQuantized(tensor)) return WriteCompressed(tensor, *options_.quantization, scale_dtype(), writer);
  std::vector<float> values;
  for (int64_t row = 0; row < tensor.rows(); row += kRowsPerPiece) {
    const int64_t rows = std::min(kRowsPerPiece, tensor.rows() - row);
    values.resize(static_cast<size_t>(rows * tensor.columns()));
    SWIFTKV_RETURN_IF_ERROR(DecodeRows(tensor, row, rows, values.data()));
    SWIFTKV_RETURN_IF_ERROR(writer->AppendBytes(EncodeValues(values, DTypeOf(tensor))));
  }
  return Ok();
}

Status TensorsOutput::Write(const std::string& folder) const {
  std::vector<TensorToWrite> plan;
  for (const StoredTensor* tensor : tensors_) {
    if (!IsQuantized(*tensor)) {
      plan.push_back({tensor->name, tensor->shape, DTypeOf(*tensor)});
      continue;
    }
    for (TensorToWrite& part : CompressedTensors(tensor->name, tensor->shape, *options_.quantization, scale_dtype())) {
      plan.push_back(std::move(part));
    }
  }
  SWIFTKV_ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(folder, std::move(plan), {.dtype = dtype_}));
  for (const StoredTensor* tensor : tensors_) SWIFTKV_RETURN_IF_ERROR(WriteTensor(*tensor, &writer));
  return writer.Finish();
}

Status WriteTensors(const ModelFiles& files, const ModelConfig& student, const MemoryTensors& tensors,
                    const OutputOptions& options, const std::string& folder) {
  TensorsOutput output(options, tensors.dtype());
  for (const BaseTensor& tensor : CheckpointTensors(student)) {
    const bool is_swiftkv = tensor.name.find("_swiftkv.") != std::string::npos;
    if (!is_swiftkv && options.adapter) continue;
    const TensorSource& source = is_swiftkv ? static_cast<const TensorSource&>(tensors) : *files.base;
    SWIFTKV_RETURN_IF_ERROR(output.Add(source, tensor));
  }
  return output.Write(folder);
}

Status CopyCompanions(const ModelFiles& files, const std::string& folder) {
  for (const char* name : kCompanionFiles) {
    const Result<std::string> path = FileInFolder(files.folder, name);
    if (!path) {
      if (path.error().code == ErrorCode::kNotFound) continue;
      return tl::unexpected<Error>(path.error());
    }
    SWIFTKV_ASSIGN_OR_RETURN(const std::string content, ReadFile(*path, kMaxCopiedBytes));
    SWIFTKV_RETURN_IF_ERROR(WriteFile((fs::path(folder) / name).string(), content));
  }
  return Ok();
}

// What transformers generates by: the tokens that config.json names too.
Status WriteGenerationConfig(const ModelConfig& config, const std::string& folder) {
  nlohmann::ordered_json json;
  if (config.bos_token_id) json["bos_token_id"] = *config.bos_token_id;
  if (!config.eos_token_id.empty()) json["eos_token_id"] = config.eos_token_id;
  if (config.pad_token_id) json["pad_token_id"] = *config.pad_token_id;
  if (json.empty()) return Ok();
  return WriteFile(folder + "/generation_config.json", json.dump(2) + "\n");
}

Result<nlohmann::ordered_json> BaseConfigJson(const ModelFiles& files) {
  if (files.folder.empty()) return HfConfigJson(files.config);
  SWIFTKV_ASSIGN_OR_RETURN(const std::string path, FileInFolder(files.folder, "config.json"));
  return ReadJsonFile(path);
}

// The folder's own name and those above it, which "." and ".." lack.
Result<fs::path> TargetOf(const OutputOptions& options) {
  if (options.folder.empty()) return InvalidInput("no output folder");
  std::error_code error;
  const fs::path absolute = fs::absolute(options.folder, error);
  if (error) return IoError("{}: {}", options.folder, error.message());
  return WithoutTrailingSlash(absolute.string());
}

bool IsMountPoint(const fs::path& folder) {
  struct statx info {};
  return statx(AT_FDCWD, folder.c_str(), AT_SYMLINK_NOFOLLOW, 0, &info) == 0 &&
         (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

// Whether `path`, or what it leads to if it is a link, is `folder` or lies in it. False for what is not there.
bool IsWithin(const std::string& path, const fs::path& folder) {
  std::error_code error;
  const fs::path whole = fs::canonical(folder, error);
  const fs::path link = WithoutTrailingSlash(fs::absolute(path, error).string());
  const fs::path leads_to = fs::canonical(link, error);
  if (error || whole.empty()) return false;
  const auto within = [&](const fs::path& inner) {
    return std::mismatch(whole.begin(), whole.end(), inner.begin(), inner.end()).first == whole.end();
  };
  return within(leads_to) || within(fs::canonical(link.parent_path(), error) / link.filename());
}

// A folder that is there is replaced as a whole, and with it goes all that lies in it.
Status CheckReplaceable(const ModelFiles& files, const fs::path& target) {
  std::vector<std::string> inputs = {files.origin};
  if (files.adapter != nullptr) inputs.push_back(files.adapter->Find(kNormSwiftKvName)->file->path());
  for (const std::string& input : inputs) {
    if (!IsWithin(input, target)) continue;
    return InvalidInput("{}: is the input model or holds it ({}); choose another folder", target.string(), input);
  }
  constexpr std::string_view kInstead = "which cannot be replaced; name a new folder in it";
  if (IsWithin(".", target)) return InvalidInput("{}: is or holds the current folder, {}", target.string(), kInstead);
  if (IsMountPoint(target)) return InvalidInput("{}: is a mount point, {}", target.string(), kInstead);
  return Ok();
}

// A folder can be made, or another put in its place, where the lowest one above it that is there may be written to.
Status CheckCreatable(const fs::path& target) {
  std::error_code error;
  fs::path above = target.parent_path();
  while (above.has_relative_path() && !fs::exists(fs::symlink_status(above, error))) above = above.parent_path();
  if (!fs::is_directory(above, error)) {
    return InvalidInput("{}: cannot be created: {} is no folder", target.string(), above.string());
  }
  if (access(above.c_str(), W_OK | X_OK) == 0) return Ok();
  return InvalidInput("{}: cannot be created in {}: {}", target.string(), above.string(), std::strerror(errno));
}

Status CheckGroups(const ModelConfig& config) {
  for (const int64_t columns : {config.hidden_size, config.q_size(), config.intermediate_size}) {
    if (columns % kInt4Group != 0) {
      return InvalidInput("int4: a matrix of {} input features has no whole groups of {}", columns, kInt4Group);
    }
  }
  return Ok();
}

}  // namespace

Status CheckOutput(const ModelFiles& files, const OutputOptions& options) {
  nlohmann::ordered_json json;
  SWIFTKV_RETURN_IF_ERROR(SetSwiftKvFields(files.config, DType::kBF16, &json));
  if (options.quantization == CompressedFormat::kInt4) SWIFTKV_RETURN_IF_ERROR(CheckGroups(files.config));
  SWIFTKV_ASSIGN_OR_RETURN(const fs::path target, TargetOf(options));
  std::error_code error;
  const fs::file_status status = fs::status(target, error);
  if (!fs::exists(status)) return CheckCreatable(target);
  if (!fs::is_directory(status)) return InvalidInput("{}: exists and is no folder", options.folder);
  SWIFTKV_RETURN_IF_ERROR(CheckReplaceable(files, target));
  SWIFTKV_RETURN_IF_ERROR(CheckCreatable(target));
  if (fs::is_empty(target, error)) return Ok();
  if (!options.overwrite) return InvalidInput("{}: the folder is not empty; --overwrite replaces it", options.folder);
  if (!fs::exists(target / "config.json", error)) {
    return InvalidInput("{}: holds something else than a model (no config.json), so it is not overwritten",
                        options.folder);
  }
  return Ok();
}

Status WriteCheckpoint(const ModelFiles& files, const ModelConfig& student, const MemoryTensors& tensors,
                       const std::string& card, const std::vector<FileToWrite>& others, const OutputOptions& options) {
  SWIFTKV_RETURN_IF_ERROR(CheckOutput(files, options));
  SWIFTKV_ASSIGN_OR_RETURN(const fs::path target, TargetOf(options));
  SWIFTKV_RETURN_IF_ERROR(MakeFolders(target.parent_path().string()));
  SWIFTKV_ASSIGN_OR_RETURN(AtomicFolder folder, AtomicFolder::Create(target.string()));
  SWIFTKV_RETURN_IF_ERROR(WriteTensors(files, student, tensors, options, folder.path()));
  if (!options.adapter) {
    SWIFTKV_RETURN_IF_ERROR(files.folder.empty() ? WriteGenerationConfig(files.config, folder.path())
                                                 : CopyCompanions(files, folder.path()));
  }
  for (const FileToWrite& file : others) {
    SWIFTKV_RETURN_IF_ERROR(WriteFile(folder.path() + "/" + file.name, file.content));
  }
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder.path() + "/README.md", card));
  SWIFTKV_ASSIGN_OR_RETURN(nlohmann::ordered_json json, BaseConfigJson(files));
  SWIFTKV_RETURN_IF_ERROR(SetSwiftKvFields(student, tensors.dtype(), &json));
  if (options.quantization) json["quantization_config"] = QuantizationConfigJson(*options.quantization);
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder.path() + "/config.json", json.dump(2) + "\n"));
  return folder.Replace();
}

}  // namespace swiftkv
