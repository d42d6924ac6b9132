#include "bench/lengths.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <utility>

#include "base/file.h"
#include "base/printable.h"
#include "checkpoint/json_file.h"

namespace swiftkv {
namespace {

constexpr std::array<std::string_view, 5> kPromptColumns = {"num_prefill_tokens", "ContextTokens", "Request tokens",
                                                            "input_tokens", "prompt_len"};
constexpr std::array<std::string_view, 5> kOutputColumns = {"num_decode_tokens", "GeneratedTokens", "Response tokens",
                                                            "output_tokens", "output_len"};
constexpr std::array<std::string_view, 3> kArrivalColumns = {"TIMESTAMP", "Timestamp", "arrival"};

std::vector<std::string_view> SplitCells(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  std::vector<std::string_view> cells;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t comma = std::min(line.find(',', begin), line.size());
    cells.push_back(line.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return cells;
}

template <class Number>
bool ParseWhole(std::string_view text, Number* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

// Takes a number and the one character after it off the front of `text`.
bool TakeNumber(char separator, std::string_view* text, int* value) {
  const size_t end = text->find(separator);
  if (end == std::string_view::npos || !ParseWhole(text->substr(0, end), value)) return false;
  text->remove_prefix(end + 1);
  return true;
}

// Takes "Z", "+HH:MM" or "-HH:MM" off the end of `text`, if it is there; seconds ahead of UTC.
std::optional<int> TakeOffset(std::string_view* text) {
  if (text->ends_with('Z')) text->remove_suffix(1);
  const size_t sign = text->find_last_of("+-");
  if (sign == std::string_view::npos) return 0;
  std::string_view offset = text->substr(sign + 1);
  int hours = 0, minutes = 0;
  if (offset.size() != 5 || !TakeNumber(':', &offset, &hours) || !ParseWhole(offset, &minutes) || hours < 0 ||
      hours > 23 || minutes < 0 || minutes > 59) {
    return std::nullopt;
  }
  const int seconds = (hours * 60 + minutes) * 60;
  const bool is_behind = (*text)[sign] == '-';
  text->remove_suffix(text->size() - sign);
  return is_behind ? -seconds : seconds;
}

// The line of `text` at *begin, which moves behind it.
std::string_view TakeLine(std::string_view text, size_t* begin) {
  const size_t end = std::min(text.find('\n', *begin), text.size());
  const std::string_view line = text.substr(*begin, end - *begin);
  *begin = end + 1;
  return line;
}

// One CSV file, read line by line.
class LengthsReader {
 public:
  LengthsReader(const std::string& path, bool with_arrivals) : path_(path), with_arrivals_(with_arrivals) {}

  Status ReadHeader(std::string_view line) {
    const std::vector<std::string_view> names = SplitCells(line);
    SWIFTKV_ASSIGN_OR_RETURN(prompt_, Column(names, kPromptColumns, "prompt tokens"));
    SWIFTKV_ASSIGN_OR_RETURN(output_, Column(names, kOutputColumns, "output tokens"));
    if (with_arrivals_) {
      SWIFTKV_ASSIGN_OR_RETURN(arrival_, Column(names, kArrivalColumns, "the time of arrival"));
    }
    return Ok();
  }

  Result<RequestLengths> ReadRow(std::string_view line, int64_t number) const {
    const std::vector<std::string_view> cells = SplitCells(line);
    RequestLengths row;
    for (const auto& [column, value] : {std::pair(prompt_, &row.prompt_tokens), {output_, &row.output_tokens}}) {
      if (column >= cells.size() || !ParseWhole(cells[column], value) || *value < 0 || *value > kMaxRequestTokens) {
        return InvalidInput("{}:{}: column {} must hold a number of tokens from 0 to {}", path_, number, column + 1,
                            kMaxRequestTokens);
      }
    }
    if (!with_arrivals_) return row;
    const std::optional<double> arrival =
        arrival_ < cells.size() ? ParseTimestamp(cells[arrival_]) : std::optional<double>();
    if (!arrival) {
      return InvalidInput("{}:{}: column {} must hold a date with time, as 2023-11-16 18:17:03.97, or seconds", path_,
                          number, arrival_ + 1);
    }
    row.arrival = *arrival;
    return row;
  }

 private:
  Result<size_t> Column(const std::vector<std::string_view>& names, std::span<const std::string_view> known,
                        std::string_view what) const {
    for (const std::string_view name : known) {
      const auto found = std::find(names.begin(), names.end(), name);
      if (found != names.end()) return static_cast<size_t>(found - names.begin());
    }
    return InvalidInput("{}: the header names no column for {} ({}, for example)", path_, what, known.front());
  }

  const std::string& path_;
  bool with_arrivals_;
  size_t prompt_ = 0;
  size_t output_ = 0;
  size_t arrival_ = 0;
};

}  // namespace

std::vector<RequestLengths> RandomLengths(int64_t count, int64_t prompt_tokens, int64_t output_tokens,
                                          double range_ratio, uint64_t seed) {
  std::mt19937_64 engine(seed);
  const auto draw = [&](int64_t length) {
    const auto center = static_cast<double>(length);
    std::uniform_int_distribution<int64_t> uniform(static_cast<int64_t>(std::floor(center * (1 - range_ratio))),
                                                   static_cast<int64_t>(std::ceil(center * (1 + range_ratio))));
    return std::max<int64_t>(uniform(engine), 1);
  };
  std::vector<RequestLengths> lengths(static_cast<size_t>(count));
  for (RequestLengths& request : lengths) {
    request.prompt_tokens = draw(prompt_tokens);
    request.output_tokens = draw(output_tokens);
  }
  return lengths;
}

Result<std::vector<RequestLengths>> ReadLengthsFile(const std::string& path, bool with_arrivals) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxLengthsFileBytes));
  LengthsReader reader(path, with_arrivals);
  std::vector<RequestLengths> rows;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const std::string_view line = TakeLine(text, &begin);
    if (++number == 1) {
      SWIFTKV_RETURN_IF_ERROR(reader.ReadHeader(line));
      continue;
    }
    if (line.empty() || line == "\r") continue;
    SWIFTKV_ASSIGN_OR_RETURN(const RequestLengths row, reader.ReadRow(line, number));
    if (row.prompt_tokens > 0 && row.output_tokens > 0) rows.push_back(row);
  }
  if (rows.empty()) return InvalidInput("{}: there is no row with prompt and output tokens", path);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const RequestLengths& a, const RequestLengths& b) { return a.arrival < b.arrival; });
  const double first = rows.front().arrival;
  for (RequestLengths& row : rows) row.arrival -= first;
  return rows;
}

Result<std::vector<RequestLengths>> ReadPromptsFile(const std::string& path, int64_t output_tokens) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxLengthsFileBytes));
  std::vector<RequestLengths> rows;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const std::string_view line = TakeLine(text, &begin);
    ++number;
    if (line.empty() || line == "\r") continue;
    SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::ordered_json json,
                             ParseJsonObject(line, fmt::format("{}:{}", path, number)));
    RequestLengths row{.output_tokens = output_tokens};
    const auto prompt = json.find("prompt");
    if (prompt != json.end() && prompt->is_string()) row.prompt = prompt->get<std::string>();
    if (row.prompt.empty()) return InvalidInput("{}:{}: the field \"prompt\" must hold a text", path, number);
    if (const auto tokens = json.find("output_tokens"); tokens != json.end()) {
      row.output_tokens = tokens->is_number_integer() ? tokens->get<int64_t>() : 0;
    }
    if (row.output_tokens < 1 || row.output_tokens > kMaxRequestTokens) {
      return InvalidInput("{}:{}: the field \"output_tokens\" must hold a number from 1 to {}", path, number,
                          kMaxRequestTokens);
    }
    rows.push_back(std::move(row));
  }
  if (rows.empty()) return InvalidInput("{}: there is no prompt", path);
  return rows;
}

std::optional<double> ParseTimestamp(std::string_view text) {
  double seconds = 0;
  if (ParseWhole(text, &seconds) && std::isfinite(seconds)) return seconds;
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  if (!TakeNumber('-', &text, &year) || !TakeNumber('-', &text, &month)) return std::nullopt;
  const char separator = text.find('T') == std::string_view::npos ? ' ' : 'T';
  if (!TakeNumber(separator, &text, &day) || !TakeNumber(':', &text, &hour) || !TakeNumber(':', &text, &minute)) {
    return std::nullopt;
  }
  const std::optional<int> offset = TakeOffset(&text);
  if (!offset) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok() || hour < 0 || hour > 23 || minute < 0 || minute > 59 || !ParseWhole(text, &seconds) ||
      !(seconds >= 0 && seconds < 61)) {
    return std::nullopt;
  }
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return static_cast<double>(days) * 86400 + hour * 3600 + minute * 60 + seconds - *offset;
}

}  // namespace swiftkv
