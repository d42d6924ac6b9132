// Points of a sweep as lines of a file, and back: what `bench sweep --resume` goes on from.
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "bench/measured_model.h"
#include "bench/sweep.h"
#include "checkpoint/json_file.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxBytes = int64_t{1} << 28;

std::optional<Mode> ParseMode(const Json& json) {
  for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
    if (json.contains("mode") && json["mode"] == std::string(ModeLabel(mode))) return mode;
  }
  return std::nullopt;
}

std::optional<SweepPoint> ParsePoint(const Json& json) {
  const auto whole = [&](const char* name) -> int64_t {
    const auto field = json.find(name);
    return field != json.end() && field->is_number_integer() ? field->get<int64_t>() : 0;
  };
  const std::optional<Mode> mode = ParseMode(json);
  Result<ServeReport> report = ParseServeReport(json);
  SweepPoint point;
  point.input_len = whole("random_input_len");
  point.output_len = whole("random_output_len");
  if (!mode || !report || point.input_len < 1 || point.output_len < 1) return std::nullopt;
  point.mode = *mode;
  point.request_rate = report->options.request_rate;
  point.report = std::move(*report);
  return point;
}

}  // namespace

std::string SweepPointLine(const SweepPoint& point, const std::string& job) {
  Json json = {{"job", job}};
  json.update(SweepPointJson(point));
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<std::vector<SweepPoint>> ReadSweepPoints(const std::string& path, const std::string& job) {
  std::vector<SweepPoint> points;
  Result<std::string> content = ReadFile(path, kMaxBytes);
  if (!content && content.error().code == ErrorCode::kNotFound) return points;
  if (!content) return tl::unexpected<Error>(std::move(content).error());
  content->erase(content->rfind('\n') + 1);  // a line that is not whole
  for (size_t begin = 0; begin < content->size();) {
    const size_t end = content->find('\n', begin);
    SWIFTKV_ASSIGN_OR_RETURN(const Json json,
                             ParseJsonObject(std::string_view(*content).substr(begin, end - begin), path));
    std::optional<SweepPoint> point = ParsePoint(json);
    if (!point) return InvalidInput("{}: byte {} begins no point of a sweep", path, begin);
    if (!json.contains("job") || json["job"] != job) {
      return InvalidInput(
          "{}: its points are of another sweep (model, options or machine); remove it, or name another folder", path);
    }
    points.push_back(std::move(*point));
    begin = end + 1;
  }
  return points;
}

}  // namespace swiftkv
