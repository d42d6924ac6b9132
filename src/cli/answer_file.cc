#include "cli/answer_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/durable_folder.h"
#include "checkpoint/json_file.h"

namespace swiftkv {
namespace {

constexpr const char* kTeacher = "teacher";
constexpr int64_t kMaxBytes = int64_t{1} << 40;

std::string PartialPath(const std::string& path) { return path + ".partial"; }

// The draw of one of our rows; nullopt for anything else. `job`: of the row.
std::optional<int64_t> DrawOf(std::string_view line, std::string* job) {
  const auto row = ParseJsonObject(line, "");
  if (!row) return std::nullopt;
  const auto teacher = row->find(kTeacher);
  if (teacher == row->end() || !teacher->is_object()) return std::nullopt;
  const auto own_job = teacher->find("job");
  const auto draw = teacher->find("draw");
  if (own_job == teacher->end() || !own_job->is_string()) return std::nullopt;
  if (draw == teacher->end() || !draw->is_number_integer()) return std::nullopt;
  *job = own_job->get<std::string>();
  return draw->get<int64_t>();
}

std::string JobName(uint64_t job) { return fmt::format("{:016x}", job); }

}  // namespace

Result<size_t> AnswerFile::Count(std::string_view content, const std::string& origin) {
  size_t whole = 0;
  while (whole < content.size()) {
    const size_t end = content.find('\n', whole);
    if (end == std::string_view::npos) break;
    std::string job;
    const std::optional<int64_t> draw = DrawOf(content.substr(whole, end - whole), &job);
    if (whole == 0 && (!draw || job != JobName(job_))) {
      return InvalidInput(
          "{}: it holds other rows (of another model, other prompts, another seed or other sampling); remove it or "
          "name "
          "another file",
          origin);
    }
    if (!draw || job != JobName(job_) || *draw < next_draw_ || *draw >= kMaxBytes) break;
    ++rows_;
    next_draw_ = *draw + 1;
    whole = end + 1;
  }
  return whole;
}

Result<AnswerFile> AnswerFile::Open(const std::string& path, uint64_t job) {
  AnswerFile file(path, job);
  const auto finished = MappedFile::Open(path);
  if (finished) {
    const auto bytes = (*finished)->bytes();
    SWIFTKV_RETURN_IF_ERROR(file.Count({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path));
    return file;
  }
  if (finished.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(finished.error());
  const std::string partial = PartialPath(path);
  const auto begun = MappedFile::Open(partial);
  if (!begun && begun.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(begun.error());
  if (begun) {
    const std::string_view content(reinterpret_cast<const char*>((*begun)->bytes().data()), (*begun)->bytes().size());
    SWIFTKV_ASSIGN_OR_RETURN(const size_t whole, file.Count(content, partial));
    if (whole < content.size()) SWIFTKV_RETURN_IF_ERROR(WriteFile(partial, content.substr(0, whole)));
  }
  SWIFTKV_ASSIGN_OR_RETURN(AppendFile append, AppendFile::Open(partial));
  file.partial_.emplace(std::move(append));
  return file;
}

Status AnswerFile::Append(nlohmann::ordered_json row, int64_t draw) {
  if (!partial_) {
    // More rows for a file that was whole: it goes back to being written.
    SWIFTKV_ASSIGN_OR_RETURN(const std::string content, ReadFile(path_, kMaxBytes));
    SWIFTKV_RETURN_IF_ERROR(WriteFile(PartialPath(path_), content));
    SWIFTKV_ASSIGN_OR_RETURN(AppendFile append, AppendFile::Open(PartialPath(path_)));
    partial_.emplace(std::move(append));
  }
  row[kTeacher] = {{"job", JobName(job_)}, {"draw", draw}};
  using Json = nlohmann::ordered_json;
  SWIFTKV_RETURN_IF_ERROR(partial_->Append(row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"));
  ++rows_;
  next_draw_ = draw + 1;
  return Ok();
}

Status AnswerFile::Finish() {
  if (!partial_) return Ok();
  SWIFTKV_RETURN_IF_ERROR(partial_->Sync());
  SWIFTKV_RETURN_IF_ERROR(RenameDurably(PartialPath(path_), path_));
  partial_.reset();
  return Ok();
}

}  // namespace swiftkv
