// A .jsonl file that is written row by row over hours and appears under its name when it is whole. Until then it is
// PATH.partial, whose rows survive whatever ends the process; the next run goes on behind the last of them.
//
//   SWIFTKV_ASSIGN_OR_RETURN(AnswerFile file, AnswerFile::Open("answers.jsonl", job));
//   for (int64_t draw = file.next_draw(); file.rows() < wanted; ++draw) file.Append(row, draw);
//   SWIFTKV_RETURN_IF_ERROR(file.Finish());
//
// Each row carries the job that it belongs to and the number of its draw, in its member "teacher".
#ifndef SWIFTKV_CLI_ANSWER_FILE_H_
#define SWIFTKV_CLI_ANSWER_FILE_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/status.h"

namespace swiftkv {

class AnswerFile {
 public:
  // `job`: of everything that the rows follow from. A last row that is not whole is dropped. Errors: kIo; kInvalidInput
  // if there is a file that is no such file or of another job.
  static Result<AnswerFile> Open(const std::string& path, uint64_t job);

  int64_t rows() const { return rows_; }
  int64_t next_draw() const { return next_draw_; }  // one more than the last row's
  // `draw` >= next_draw(). After an error the file is as it was.
  Status Append(nlohmann::ordered_json row, int64_t draw);
  // Gives the file its name.
  Status Finish();

 private:
  AnswerFile(std::string path, uint64_t job) : path_(std::move(path)), job_(job) {}
  // Counts the whole rows of this job that `content` begins with; returns their bytes.
  Result<size_t> Count(std::string_view content, const std::string& origin);

  std::string path_;
  uint64_t job_;
  int64_t rows_ = 0;
  int64_t next_draw_ = 0;
  std::optional<AppendFile> partial_;  // absent: the file has its name already
};

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_ANSWER_FILE_H_
