// Responses as they come, one a line, in a file that survives whatever ends the process: what --resume goes on from.
//
//   SWIFTKV_ASSIGN_OR_RETURN(ResponseFile file, ResponseFile::Open(path, job, /*resume=*/true));
//   if (const Response* known = file.Find(document, prompt_hash)) ...
//   SWIFTKV_RETURN_IF_ERROR(file.Append(document, prompt_hash, response));
//
// Its first line is the job: everything that responses follow from besides the prompts. Scores are not in it: they are
// computed from the responses anew.
#ifndef SWIFTKV_EVAL_RESPONSE_FILE_H_
#define SWIFTKV_EVAL_RESPONSE_FILE_H_

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/status.h"
#include "eval/task.h"

namespace swiftkv {

class ResponseFile {
 public:
  // `resume` keeps the rows of a file that is there, but for a last one that is not whole; otherwise a file with rows
  // is set aside. Errors: kIo; kInvalidInput if the file belongs to another job or holds something else.
  static Result<ResponseFile> Open(const std::string& path, const nlohmann::ordered_json& job, bool resume);

  // What a file with rows was renamed to; empty: there was none.
  const std::string& set_aside() const { return set_aside_; }
  int64_t rows() const { return static_cast<int64_t>(responses_.size()); }
  // The response to this very prompt; null where there is none.
  const Response* Find(int64_t document, std::string_view prompt_hash) const;
  // After an error the file is as it was.
  Status Append(int64_t document, std::string_view prompt_hash, const Response& response);

 private:
  explicit ResponseFile(AppendFile file) : file_(std::move(file)) {}

  AppendFile file_;
  std::string set_aside_;
  std::map<int64_t, std::pair<std::string, Response>> responses_;  // by document: prompt hash, response
};

// A response's choices as [[log-likelihood, is greedy], ...], its text as ["..."].
nlohmann::ordered_json ResponseJson(const Response& response);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_RESPONSE_FILE_H_
