#include "distill/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace swiftkv {
namespace {

constexpr int kBarWidth = 16;
constexpr double kMaxSeconds = 360'000'000;  // a hundred thousand hours: beyond it, the estimate is none

}  // namespace

std::string DurationText(double seconds) {
  if (!(seconds >= 0 && seconds < kMaxSeconds)) return "?";
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string Progress::Text() const {
  const StepMetrics& last = window_.back();
  const auto mean = [&](double StepMetrics::*field) {
    double sum = 0;
    for (const StepMetrics& metrics : window_) sum += metrics.*field;
    return sum / static_cast<double>(window_.size());
  };
  const int64_t total = std::max(options_.total_steps, last.step);
  std::string text = fmt::format("step {}/{} ", last.step, total);
  if (options_.terminal) {
    const int done = total == 0 ? 0 : static_cast<int>(kBarWidth * last.step / total);
    text += fmt::format("[{}{}] ", std::string(done, '#'), std::string(kBarWidth - done, '-'));
  }
  text +=
      fmt::format("loss {:.4f}  KL {:.4f}  agreement {:.1f} %  {:.0f} tok/s", mean(&StepMetrics::loss),
                  mean(&StepMetrics::kl), 100 * mean(&StepMetrics::agreement), mean(&StepMetrics::tokens_per_second));
  const int64_t steps = last.step - window_.front().step;
  if (steps > 0) {
    const double per_step = (last.seconds - window_.front().seconds) / static_cast<double>(steps);
    text += "  ETA " + DurationText(per_step * static_cast<double>(total - last.step));
  }
  return text;
}

void Progress::Draw(std::string_view line) {
  // The last column stays free: a character there moves some terminals to the next line.
  line = line.substr(0, static_cast<size_t>(std::max(options_.columns - 1, 1)));
  const size_t erased = drawn_ > line.size() ? drawn_ - line.size() : 0;
  write_(fmt::format("\r{}{}", line, std::string(erased, ' ')));
  drawn_ = line.size();
}

void Progress::Step(const StepMetrics& metrics) {
  window_.push_back(metrics);
  if (window_.size() > kWindow) window_.pop_front();
  current_ = false;
  const double pause = options_.terminal ? options_.redraw_seconds : options_.line_seconds;
  if (shown_ && metrics.seconds - shown_seconds_ < pause) return;
  shown_ = current_ = true;
  shown_seconds_ = metrics.seconds;
  if (options_.terminal) {
    Draw(Text());
  } else {
    write_(Text() + "\n");
  }
}

void Progress::Note(std::string_view line) {
  if (!options_.terminal || drawn_ == 0) {
    write_(fmt::format("{}\n", line));
    return;
  }
  Draw("");
  write_(fmt::format("\r{}\n", line));
  Draw(Text());
}

void Progress::Finish() {
  if (window_.empty()) return;
  if (options_.terminal) {
    Draw(Text());
    write_("\n");
    drawn_ = 0;
  } else if (!current_) {
    write_(Text() + "\n");
  }
  current_ = true;
}

}  // namespace swiftkv
