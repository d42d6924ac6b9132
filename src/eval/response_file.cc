#include "eval/response_file.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "checkpoint/json_file.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxBytes = int64_t{1} << 34;

std::string Line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

struct Row {
  int64_t document = 0;
  std::string prompt_hash;
  Response response;
};

std::optional<Response> ParseResponse(const Json& json) {
  Response response;
  if (!json.is_array()) return std::nullopt;
  for (const Json& value : json) {
    if (value.is_string() && json.size() == 1) {
      response.text = value.get<std::string>();
    } else if (value.is_array() && value.size() == 2 && value[0].is_number() && value[1].is_boolean()) {
      response.choices.push_back({value[0].get<double>(), value[1].get<bool>()});
    } else {
      return std::nullopt;
    }
  }
  return response;
}

std::optional<Row> ParseRow(std::string_view line) {
  const auto json = ParseJsonObject(line, "");
  if (!json || !json->contains("doc_id") || !json->contains("prompt_hash") || !json->contains("resps")) {
    return std::nullopt;
  }
  const Json& document = (*json)["doc_id"];
  const Json& hash = (*json)["prompt_hash"];
  std::optional<Response> response = ParseResponse((*json)["resps"]);
  if (!document.is_number_integer() || !hash.is_string() || !response) return std::nullopt;
  if (const auto truncated = json->find("truncated"); truncated != json->end()) {
    if (!truncated->is_number_integer()) return std::nullopt;
    response->truncated = truncated->get<int64_t>();
  }
  response->at_length = json->contains("at_length");
  return Row{document.get<int64_t>(), hash.get<std::string>(), std::move(*response)};
}

// Whether there is anything behind the first line, which is the job.
bool HoldsRows(std::string_view content) { return content.find('\n') + 1 < content.size(); }

}  // namespace

Json ResponseJson(const Response& response) {
  if (response.choices.empty()) return Json::array({response.text});
  Json json = Json::array();
  for (const ScoredChoice& choice : response.choices) {
    json.push_back(Json::array({choice.loglikelihood, choice.is_greedy}));
  }
  return json;
}

Result<ResponseFile> ResponseFile::Open(const std::string& path, const Json& job, bool resume) {
  Result<std::string> found = ReadFile(path, kMaxBytes);
  if (!found && found.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(std::move(found).error());
  std::string content = found ? std::move(*found) : "";
  std::string set_aside;
  if (!resume) {
    if (HoldsRows(content)) {
      SWIFTKV_ASSIGN_OR_RETURN(set_aside, SetAside(path));
    }
    content.clear();
  }
  const std::string first = Line({{"job", job}});
  content.erase(content.rfind('\n') + 1);  // a row that is not whole
  if (!content.empty() && !content.starts_with(first)) {
    return InvalidInput(
        "{}: its responses are of another run (model, options or program); remove it, or name another "
        "--output-path",
        path);
  }
  SWIFTKV_RETURN_IF_ERROR(WriteFile(path, content.empty() ? first : content));
  SWIFTKV_ASSIGN_OR_RETURN(AppendFile append, AppendFile::Open(path));
  ResponseFile file(std::move(append));
  file.set_aside_ = std::move(set_aside);
  for (size_t begin = first.size(); begin < content.size();) {
    const size_t end = content.find('\n', begin);
    std::optional<Row> row = ParseRow(std::string_view(content).substr(begin, end - begin));
    if (!row) return InvalidInput("{}: byte {} begins no row of responses", path, begin);
    file.responses_[row->document] = {std::move(row->prompt_hash), std::move(row->response)};
    begin = end + 1;
  }
  return file;
}

const Response* ResponseFile::Find(int64_t document, std::string_view prompt_hash) const {
  const auto found = responses_.find(document);
  return found == responses_.end() || found->second.first != prompt_hash ? nullptr : &found->second.second;
}

Status ResponseFile::Append(int64_t document, std::string_view prompt_hash, const Response& response) {
  Json row = {{"doc_id", document}, {"prompt_hash", prompt_hash}, {"resps", ResponseJson(response)}};
  if (response.truncated > 0) row["truncated"] = response.truncated;
  if (response.at_length) row["at_length"] = true;
  SWIFTKV_RETURN_IF_ERROR(file_.Append(Line(row)));
  responses_[document] = {std::string(prompt_hash), response};
  return Ok();
}

}  // namespace swiftkv
