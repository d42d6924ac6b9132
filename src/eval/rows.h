// Rows of an evaluation set's file.
//
//   SWIFTKV_RETURN_IF_ERROR(ForEachRow(folder + "/winogrande/dev.jsonl", [&](const JsonObject& row) -> Status {
//     SWIFTKV_ASSIGN_OR_RETURN(std::string sentence, row.String("sentence"));
//     ...
//   }));
#ifndef SWIFTKV_EVAL_ROWS_H_
#define SWIFTKV_EVAL_ROWS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"

namespace swiftkv {

class JsonObject;

inline constexpr int64_t kMaxSetBytes = 1 << 30;  // of one file

// Calls `read` for each row of a file: a JSON object a line, or one JSON array of objects. Its error ends the reading.
// Errors: kNotFound; kInvalidInput, with file, line and field (a file without rows too).
Status ForEachRow(const std::string& path, const std::function<Status(const JsonObject& row)>& read);

// The rows' own text, each a JSON object; those of an array are written anew. Errors: as ForEachRow's.
Result<std::vector<std::string>> RowTexts(const std::string& path);

// The member `name`, an array of at least `at_least` strings.
Result<std::vector<std::string>> Strings(const JsonObject& row, const char* name, size_t at_least);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_ROWS_H_
