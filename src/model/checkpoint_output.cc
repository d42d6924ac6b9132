#include "model/checkpoint_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "base/file.h"
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

// A folder that is removed with all it holds unless it was renamed into place.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Whether a tensor is a projection's matrix, which compressed-tensors calls "Linear".
bool IsProjection(const std::string& name) {
  return name.ends_with("_proj.weight") || name.ends_with("_swiftkv.weight");
}

// A checkpoint's tensors on their way to the disk.
class TensorsOutput {
 public:
  TensorsOutput(const OutputOptions& options, DType dtype) : options_(options), dtype_(dtype) {}

  template <class Tensor>  // BaseTensor or SwiftKvTensor
  void Add(const TensorSource& source, const std::vector<Tensor>& tensors) {
    for (const Tensor& tensor : tensors) entries_.push_back({&source, tensor.name, tensor.shape});
  }
  Status Write(const std::string& folder);

 private:
  struct Entry {
    const TensorSource* source;
    std::string name;
    std::vector<int64_t> shape;
  };
  bool IsQuantized(const Entry& entry) const {
    return options_.quantization && entry.shape.size() == 2 && IsProjection(entry.name);
  }
  Status WriteEntry(const Entry& entry, SafetensorsWriter* writer) const;

  const OutputOptions& options_;
  DType dtype_;
  std::vector<Entry> entries_;
};

Status TensorsOutput::WriteEntry(const Entry& entry, SafetensorsWriter* writer) const {
  const StoredTensor* tensor = entry.source->Find(entry.name);
  if (tensor == nullptr) return NotFound("{}: the checkpoint has no such tensor", entry.source->Place(entry.name));
  if (tensor->shape != entry.shape) {
    return InvalidInput("{}: another shape than config.json says", entry.source->Place(entry.name));
  }
  if (IsQuantized(entry)) return WriteCompressed(*tensor, *options_.quantization, dtype_, writer);
  std::vector<float> values;
  for (int64_t row = 0; row < tensor->rows(); row += kRowsPerPiece) {
    const int64_t rows = std::min(kRowsPerPiece, tensor->rows() - row);
    values.resize(static_cast<size_t>(rows * tensor->columns()));
    SWIFTKV_RETURN_IF_ERROR(DecodeRows(*tensor, row, rows, values.data()));
    SWIFTKV_RETURN_IF_ERROR(writer->Append(values));
  }
  return Ok();
}

Status TensorsOutput::Write(const std::string& folder) {
  std::vector<TensorToWrite> plan;
  for (const Entry& entry : entries_) {
    if (!IsQuantized(entry)) {
      plan.push_back({entry.name, entry.shape});
      continue;
    }
    for (TensorToWrite& part : CompressedTensors(entry.name, entry.shape, *options_.quantization)) {
      plan.push_back(std::move(part));
    }
  }
  SWIFTKV_ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(folder, std::move(plan), {.dtype = dtype_}));
  for (const Entry& entry : entries_) SWIFTKV_RETURN_IF_ERROR(WriteEntry(entry, &writer));
  return writer.Finish();
}

Status WriteTensors(const ModelFiles& files, const ModelConfig& student, const MemoryTensors& tensors,
                    const OutputOptions& options, const std::string& folder) {
  TensorsOutput output(options, tensors.dtype());
  if (!options.adapter) output.Add(*files.base, BaseTensors(student));
  output.Add(tensors, SwiftKvTensors(student));
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

Status Rename(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) return IoError("{}: cannot rename into place: {}", to.string(), error.message());
  return Ok();
}

// Moves the finished folder to its name; what was there goes away afterwards.
Status Publish(const TemporaryFolder& finished, const fs::path& target) {
  std::error_code ignored;
  if (!fs::exists(target, ignored)) return Rename(finished.path(), target);
  const TemporaryFolder old(fmt::format("{}.old-{}", target.string(), getpid()));
  SWIFTKV_RETURN_IF_ERROR(Rename(target, old.path()));
  Status renamed = Rename(finished.path(), target);
  if (!renamed) SWIFTKV_RETURN_IF_ERROR(Rename(old.path(), target));
  return renamed;
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
  if (!fs::exists(status)) return Ok();
  if (!fs::is_directory(status)) return InvalidInput("{}: exists and is no folder", options.folder);
  SWIFTKV_RETURN_IF_ERROR(CheckReplaceable(files, target));
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
  std::error_code error;
  fs::create_directories(target.parent_path(), error);
  if (error) return IoError("{}: cannot make the folder: {}", target.parent_path().string(), error.message());

  const TemporaryFolder temporary(fmt::format("{}.tmp-{}", target.string(), getpid()));
  SWIFTKV_RETURN_IF_ERROR(WriteTensors(files, student, tensors, options, temporary.path()));
  if (!options.adapter) {
    SWIFTKV_RETURN_IF_ERROR(files.folder.empty() ? WriteGenerationConfig(files.config, temporary.path())
                                                 : CopyCompanions(files, temporary.path()));
  }
  for (const FileToWrite& file : others) {
    SWIFTKV_RETURN_IF_ERROR(WriteFile(temporary.path() + "/" + file.name, file.content));
  }
  SWIFTKV_RETURN_IF_ERROR(WriteFile(temporary.path() + "/README.md", card));
  SWIFTKV_ASSIGN_OR_RETURN(nlohmann::ordered_json json, BaseConfigJson(files));
  SWIFTKV_RETURN_IF_ERROR(SetSwiftKvFields(student, tensors.dtype(), &json));
  if (options.quantization) json["quantization_config"] = QuantizationConfigJson(*options.quantization);
  SWIFTKV_RETURN_IF_ERROR(WriteFile(temporary.path() + "/config.json", json.dump(2) + "\n"));
  return Publish(temporary, target);
}

}  // namespace swiftkv
