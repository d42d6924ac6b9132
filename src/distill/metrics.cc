#include "distill/metrics.h"

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "checkpoint/json_file.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxMetricsBytes = 1 << 30;

std::string Line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string LineOf(const StepMetrics& m) {
  return Line({{"step", m.step},
               {"tokens", m.tokens},
               {"loss", m.loss},
               {"kl", m.kl},
               {"hidden_loss", m.hidden_loss},
               {"agreement", m.agreement},
               {"grad_norm", m.grad_norm},
               {"learning_rate", m.learning_rate},
               {"tok_s", m.tokens_per_second},
               {"seconds", m.seconds}});
}

std::string LineOf(const HeldOutMetrics& m) {
  return Line({{"step", m.step},
               {"held_out", m.source},
               {"tokens", m.quality.tokens},
               {"kl", m.quality.kl},
               {"agreement", m.quality.agreement},
               {"teacher_cross_entropy", m.quality.teacher_nll},
               {"student_cross_entropy", m.quality.student_nll}});
}

int64_t Integer(const Json& json, const char* key) {
  const Json value = json.value(key, Json());
  return value.is_number_integer() ? value.get<int64_t>() : 0;
}

double Number(const Json& json, const char* key) {
  const Json value = json.value(key, Json());
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

StepMetrics StepFromJson(const Json& json) {
  return {.step = Integer(json, "step"),
          .tokens = Integer(json, "tokens"),
          .loss = Number(json, "loss"),
          .kl = Number(json, "kl"),
          .hidden_loss = Number(json, "hidden_loss"),
          .agreement = Number(json, "agreement"),
          .grad_norm = Number(json, "grad_norm"),
          .learning_rate = Number(json, "learning_rate"),
          .tokens_per_second = Number(json, "tok_s"),
          .seconds = Number(json, "seconds")};
}

HeldOutMetrics HeldOutFromJson(const Json& json) {
  return {.step = Integer(json, "step"),
          .source = json["held_out"].get<std::string>(),
          .quality = {.tokens = Integer(json, "tokens"),
                      .kl = Number(json, "kl"),
                      .agreement = Number(json, "agreement"),
                      .teacher_nll = Number(json, "teacher_cross_entropy"),
                      .student_nll = Number(json, "student_cross_entropy")}};
}

// nullopt: no line of ours.
std::optional<Json> ParseLine(std::string_view line) {
  Result<Json> json = ParseJsonObject(line, "");
  if (!json || !json->value("step", Json()).is_number_integer()) return std::nullopt;
  const Json held_out = json->value("held_out", Json());
  if (!held_out.is_null() && !held_out.is_string()) return std::nullopt;
  return std::move(*json);
}

// Calls `visit` with each line and its newline, which the last may lack.
void ForEachLine(std::string_view text, const std::function<void(std::string_view)>& visit) {
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const size_t size = newline == std::string_view::npos ? text.size() : newline + 1;
    visit(text.substr(0, size));
    text.remove_prefix(size);
  }
}

struct Kept {
  std::string text;
  int64_t last_step = 0;  // of the lines of steps
  int64_t unreadable = 0;
};

Kept KeepUpTo(int64_t step, std::string_view text) {
  Kept kept;
  ForEachLine(text, [&](std::string_view line) {
    const std::optional<Json> json = ParseLine(line);
    // Without its newline a number may have lost digits.
    if (!json || !line.ends_with('\n')) {
      // The line that a killed process was writing belongs to a step after the checkpoint.
      if (line.ends_with('\n')) ++kept.unreadable;
    } else if (const int64_t of_step = Integer(*json, "step"); of_step <= step) {
      kept.text += line;
      if (!json->contains("held_out")) kept.last_step = of_step;
    }
  });
  return kept;
}

}  // namespace

Result<Metrics> ReadMetrics(const std::string& path) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxMetricsBytes));
  Metrics metrics;
  ForEachLine(text, [&](std::string_view line) {
    const std::optional<Json> json = ParseLine(line);
    if (!json || !line.ends_with('\n')) {
      ++metrics.unreadable_lines;
    } else if (json->contains("held_out")) {
      HeldOutMetrics held_out = HeldOutFromJson(*json);
      std::erase_if(metrics.held_out, [&](const HeldOutMetrics& earlier) {
        return earlier.step == held_out.step && earlier.source == held_out.source;
      });
      metrics.held_out.push_back(std::move(held_out));
    } else {
      metrics.steps.push_back(StepFromJson(*json));
    }
  });
  return metrics;
}

Result<MetricsLog> MetricsLog::Open(const std::string& path, int64_t step) {
  Kept kept;
  const Result<std::string> text = ReadFile(path, kMaxMetricsBytes);
  if (text) {
    if (step > 0) kept = KeepUpTo(step, *text);
    // Whole or not at all: a crash in here leaves the old file or the new one.
    if (kept.text != *text) SWIFTKV_RETURN_IF_ERROR(WriteFile(path, kept.text));
  } else if (text.error().code != ErrorCode::kNotFound) {
    return tl::unexpected<Error>(text.error());
  }
  SWIFTKV_ASSIGN_OR_RETURN(AppendFile file, AppendFile::Open(path));
  MetricsLog log(std::move(file));
  if (kept.unreadable > 0) {
    log.warnings_.push_back(fmt::format("{}: {} unreadable lines are removed", path, kept.unreadable));
  }
  if (kept.last_step < step) {
    log.warnings_.push_back(
        fmt::format("{}: ends at step {}, the checkpoint is of step {}", path, kept.last_step, step));
  }
  return log;
}

Status MetricsLog::Append(const StepMetrics& metrics) { return file_.Append(LineOf(metrics)); }

Status MetricsLog::Append(const HeldOutMetrics& metrics) { return file_.Append(LineOf(metrics)); }

}  // namespace swiftkv
