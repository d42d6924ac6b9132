#include "distill/training_checkpoint.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/durable_folder.h"
#include "base/file.h"
#include "base/file_calls.h"
#include "base/printable.h"
#include "checkpoint/json_file.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/tensor_source.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kFormatVersion = 1;
constexpr char kTensorFile[] = "model.safetensors";
constexpr char kStateFile[] = "training_state.json";
constexpr std::string_view kNamePrefix = "checkpoint-";
// A checkpoint that is being replaced by one of the same step: good until the new one has its name.
constexpr std::string_view kOldMark = ".old";
// On its way out: it may have lost files already.
constexpr std::string_view kRemovedMark = ".removed";

std::string Join(const std::string& folder, std::string_view name) { return (fs::path(folder) / name).string(); }

std::string Compact(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string Hex(uLong crc) { return fmt::format("{:08x}", crc); }

std::string ChecksumOfText(std::string_view text) {
  return Hex(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

// The member "files" of training_state.json for one file. Reads instead of mapping, because a sector that can't be read
// is an error to read and a deadly signal to map.
Result<Json> FileRecord(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> piece(1 << 20);
  uLong crc = 0;
  int64_t bytes = 0;
  while (file) {
    file.read(piece.data(), std::ssize(piece));
    crc = crc32_z(crc, reinterpret_cast<const Bytef*>(piece.data()), static_cast<size_t>(file.gcount()));
    bytes += file.gcount();
  }
  if (!file.eof()) return IoError("{}: cannot read", path);
  return Json{{"bytes", bytes}, {"crc32", Hex(crc)}};
}

// --- The names in the folder.

struct Candidate {
  int64_t step = 0;
  std::string name;
  bool old = false;
};

// nullopt: no checkpoint's name.
std::optional<Candidate> ParseName(const std::string& name) {
  std::string_view digits = name;
  if (!digits.starts_with(kNamePrefix)) return std::nullopt;
  digits.remove_prefix(kNamePrefix.size());
  Candidate candidate{.name = name, .old = digits.ends_with(kOldMark)};
  if (candidate.old) digits.remove_suffix(kOldMark.size());
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), candidate.step);
  const bool all = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  if (!all || candidate.step < 0) return std::nullopt;
  return candidate;
}

struct FolderContents {
  std::vector<Candidate> candidates;   // newest first, of one step the replaced one last
  std::vector<std::string> leftovers;  // of processes that were killed
};

Result<FolderContents> List(const std::string& folder) {
  FolderContents contents;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kNamePrefix)) continue;
    if (std::optional<Candidate> candidate = ParseName(name)) {
      contents.candidates.push_back(std::move(*candidate));
    } else if (name.ends_with(kRemovedMark) || name.find(kTemporaryMark) != std::string::npos) {
      contents.leftovers.push_back(name);
    }
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return IoError("{}: cannot list the folder: {}", folder, error.message());
  }
  std::sort(contents.candidates.begin(), contents.candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::pair(-a.step, a.old) < std::pair(-b.step, b.old);
  });
  return contents;
}

// What can't be removed is in nobody's way and is tried again at the next save.
void RemoveLeftovers(const std::string& folder, const FolderContents& contents) {
  for (const std::string& name : contents.leftovers) static_cast<void>(RemoveFolder(Join(folder, name)));
}

// Renamed first: no checkpoint's name may stand on a folder that has lost files.
void RemoveCheckpoint(const std::string& path) {
  const std::string removed = path + std::string(kRemovedMark);
  if (!RemoveFolder(removed)) return;
  if (file_calls::Rename(path.c_str(), removed.c_str()) == 0) static_cast<void>(RemoveFolder(removed));
}

void RemoveOthers(const std::string& folder, int64_t step, int64_t keep) {
  const Result<FolderContents> contents = List(folder);
  if (!contents) return;
  int64_t kept = 0;
  for (const Candidate& candidate : contents->candidates) {
    const bool stays = candidate.step <= step && !candidate.old && kept < std::max<int64_t>(keep, 1);
    if (stays) {
      ++kept;
    } else {
      RemoveCheckpoint(Join(folder, candidate.name));
    }
  }
}

// --- Writing.

struct Part {
  std::string_view name;
  std::vector<float> Parameter::*values;
};
constexpr Part kParts[] = {{"value", &Parameter::value},
                           {"first_moment", &Parameter::first_moment},
                           {"second_moment", &Parameter::second_moment}};

std::string TensorName(const Part& part, const Parameter& parameter) {
  return fmt::format("{}.{}", part.name, parameter.name);
}

Status WriteTensors(const TrainingState& state, const std::string& folder) {
  std::vector<TensorToWrite> plan;
  for (const Parameter& parameter : state.parameters) {
    for (const Part& part : kParts) plan.push_back({TensorName(part, parameter), parameter.shape});
  }
  const SafetensorsWriterOptions options{.dtype = DType::kF32, .max_shard_bytes = INT64_MAX};
  SWIFTKV_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(folder, std::move(plan), options));
  for (const Parameter& parameter : state.parameters) {
    int64_t count = 1;  // the writer has checked that it fits
    for (const int64_t size : parameter.shape) count *= size;
    for (const Part& part : kParts) {
      const std::vector<float>& values = parameter.*part.values;
      if (std::ssize(values) != count) {
        return InvalidInput("{} has {} values, its shape asks for {}", TensorName(part, parameter), values.size(),
                            count);
      }
      SWIFTKV_RETURN_IF_ERROR(writer.Append(values));
    }
  }
  return writer.Finish();
}

Status WriteState(const TrainingState& state, const std::string& folder) {
  SWIFTKV_ASSIGN_OR_RETURN(Json record, FileRecord(Join(folder, kTensorFile)));
  Json json = {{"format_version", kFormatVersion},
               {"step", state.step},
               {"tokens", state.tokens},
               {"seconds", state.seconds},
               {"recipe_fingerprint", state.recipe_fingerprint},
               {"device", state.device},
               {"dataset", state.dataset},
               {"files", {{kTensorFile, std::move(record)}}}};
  json["crc32"] = ChecksumOfText(Compact(json));
  const std::string text = Compact(json) + "\n";
  if (std::ssize(text) > kMaxJsonFileBytes) {
    return InvalidInput("{} would have {} bytes, the limit is {}", kStateFile, text.size(), kMaxJsonFileBytes);
  }
  SWIFTKV_RETURN_IF_ERROR(ParseJsonObject(text, kStateFile));
  return WriteFile(Join(folder, kStateFile), text);
}

// Gives the finished folder its name, which an older checkpoint of the same step may bear.
Status Publish(AtomicFolder* finished, const std::string& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return finished->Commit();
  const std::string old = path + std::string(kOldMark);
  SWIFTKV_RETURN_IF_ERROR(RemoveFolder(old));
  SWIFTKV_RETURN_IF_ERROR(RenameDurably(path, old));
  Status status = finished->Commit();
  // Where this fails too, `old` is loaded under its own name.
  if (!status) file_calls::Rename(old.c_str(), path.c_str());
  return status;
}

Status Save(const std::string& folder, const TrainingState& state, int64_t keep) {
  SWIFTKV_RETURN_IF_ERROR(MakeFolders(folder));
  SWIFTKV_ASSIGN_OR_RETURN(const FolderContents contents, List(folder));
  RemoveLeftovers(folder, contents);
  const std::string path = Join(folder, fmt::format("{}{}", kNamePrefix, state.step));
  SWIFTKV_ASSIGN_OR_RETURN(AtomicFolder checkpoint, AtomicFolder::Create(path));
  SWIFTKV_RETURN_IF_ERROR(WriteTensors(state, checkpoint.path()));
  SWIFTKV_RETURN_IF_ERROR(WriteState(state, checkpoint.path()));
  SWIFTKV_RETURN_IF_ERROR(Publish(&checkpoint, path));
  RemoveOthers(folder, state.step, keep);
  return Ok();
}

// --- Reading.

Result<Json> ReadVerifiedState(const std::string& path, int64_t step) {
  const std::string origin = Join(path, kStateFile);
  SWIFTKV_ASSIGN_OR_RETURN(Json json, ReadJsonFile(origin));
  const Json checksum = json.value("crc32", Json());
  json.erase("crc32");
  if (checksum != ChecksumOfText(Compact(json))) return IoError("{}: the checksum is wrong", origin);
  // The checksum is right, so these are as some version of this program wrote them.
  if (json.value("format_version", Json()) != kFormatVersion) {
    return IoError("{}: written by another version of this program", origin);
  }
  if (json.value("step", Json()) != step) return IoError("{}: is not of step {}", origin, step);
  if (!json.value("tokens", Json()).is_number_integer() || !json.value("seconds", Json()).is_number() ||
      !json.value("recipe_fingerprint", Json()).is_string() || !json.contains("dataset")) {
    return IoError("{}: fields are missing", origin);
  }
  return json;
}

struct OpenCheckpoint {
  Json json;
  std::unique_ptr<TensorSource> tensors;
};

// Any error means that the checkpoint is damaged.
Result<OpenCheckpoint> OpenVerified(const std::string& path, int64_t step) {
  OpenCheckpoint checkpoint;
  SWIFTKV_ASSIGN_OR_RETURN(checkpoint.json, ReadVerifiedState(path, step));
  const std::string file = Join(path, kTensorFile);
  SWIFTKV_ASSIGN_OR_RETURN(const Json record, FileRecord(file));
  if (checkpoint.json.value("files", Json()) != Json{{kTensorFile, record}}) {
    return IoError("{}: the checksum is wrong", file);
  }
  SWIFTKV_ASSIGN_OR_RETURN(checkpoint.tensors, OpenSafetensors(file));
  return checkpoint;
}

Status CheckIsOf(const OpenCheckpoint& checkpoint, const TrainingState& expected, const std::string& path) {
  if (checkpoint.json["recipe_fingerprint"] != expected.recipe_fingerprint) {
    return InvalidInput("{}: is of another recipe, model or data; remove it or choose another folder to begin anew",
                        path);
  }
  for (const Parameter& parameter : expected.parameters) {
    for (const Part& part : kParts) {
      const std::string name = TensorName(part, parameter);
      const StoredTensor* tensor = checkpoint.tensors->Find(name);
      if (tensor == nullptr) return InvalidInput("{}: has no {}, which this run trains", path, name);
      if (tensor->shape != parameter.shape || tensor->dtype != DType::kF32) {
        return InvalidInput("{}: {} is {} {}, this run's is F32 {}", path, name, Name(tensor->dtype),
                            Json(tensor->shape).dump(), Json(parameter.shape).dump());
      }
    }
  }
  const auto expected_tensors = static_cast<int64_t>(expected.parameters.size() * std::size(kParts));
  if (std::ssize(checkpoint.tensors->names()) != expected_tensors) {
    return InvalidInput("{}: holds {} tensors, this run has {}", path, checkpoint.tensors->names().size(),
                        expected_tensors);
  }
  return Ok();
}

Result<TrainingState> ReadState(OpenCheckpoint checkpoint, const TrainingState& expected) {
  TrainingState state;
  state.step = checkpoint.json["step"].get<int64_t>();
  state.tokens = checkpoint.json["tokens"].get<int64_t>();
  state.seconds = checkpoint.json["seconds"].get<double>();
  state.recipe_fingerprint = checkpoint.json["recipe_fingerprint"].get<std::string>();
  const Json device = checkpoint.json.value("device", Json());
  if (device.is_string()) state.device = device.get<std::string>();
  state.dataset = std::move(checkpoint.json["dataset"]);
  for (const Parameter& like : expected.parameters) {
    Parameter parameter{.name = like.name, .shape = like.shape, .value = {}, .first_moment = {}, .second_moment = {}};
    for (const Part& part : kParts) {
      const StoredTensor* tensor = checkpoint.tensors->Find(TensorName(part, like));
      std::vector<float>& values = parameter.*part.values;
      values.resize(static_cast<size_t>(tensor->rows() * tensor->columns()));
      SWIFTKV_RETURN_IF_ERROR(DecodeRows(*tensor, 0, tensor->rows(), values.data()));
    }
    state.parameters.push_back(std::move(parameter));
  }
  return state;
}

struct Latest {
  OpenCheckpoint checkpoint;
  std::string path;
  std::vector<std::string> warnings;
};

Result<Latest> OpenLatest(const std::string& folder, const FolderContents& contents) {
  Latest latest;
  for (const Candidate& candidate : contents.candidates) {
    latest.path = Join(folder, candidate.name);
    Result<OpenCheckpoint> checkpoint = OpenVerified(latest.path, candidate.step);
    if (checkpoint) {
      latest.checkpoint = std::move(*checkpoint);
      return latest;
    }
    latest.warnings.push_back(fmt::format("{} is damaged and not used ({})", latest.path, checkpoint.error().message));
  }
  if (latest.warnings.empty()) return NotFound("{}: no checkpoint", folder);
  return IoError("{}: none of {} checkpoints is complete: {}", folder, latest.warnings.size(), latest.warnings[0]);
}

}  // namespace

Status SaveTrainingCheckpoint(const std::string& folder, const TrainingState& state, int64_t keep) {
  Status status = Save(folder, state, keep);
  if (status) return Ok();
  return MakeError(status.error().code, "{}: the checkpoint of step {} is not saved: {}", folder, state.step,
                   status.error().message);
}

Result<LoadedCheckpoint> LoadTrainingCheckpoint(const std::string& folder, const TrainingState& expected) {
  SWIFTKV_ASSIGN_OR_RETURN(const FolderContents contents, List(folder));
  RemoveLeftovers(folder, contents);
  SWIFTKV_ASSIGN_OR_RETURN(Latest latest, OpenLatest(folder, contents));
  SWIFTKV_RETURN_IF_ERROR(CheckIsOf(latest.checkpoint, expected, latest.path));
  LoadedCheckpoint loaded{.state = {}, .path = latest.path, .warnings = std::move(latest.warnings)};
  SWIFTKV_ASSIGN_OR_RETURN(loaded.state, ReadState(std::move(latest.checkpoint), expected));
  return loaded;
}

Result<std::string> FindLatestCheckpoint(const std::string& folder) {
  SWIFTKV_ASSIGN_OR_RETURN(const FolderContents contents, List(folder));
  SWIFTKV_ASSIGN_OR_RETURN(Latest latest, OpenLatest(folder, contents));
  return latest.path;
}

}  // namespace swiftkv
