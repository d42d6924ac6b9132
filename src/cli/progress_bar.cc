#include "cli/progress_bar.h"

#include <fmt/format.h>

#include "cli/terminal.h"
#include "distill/progress.h"

namespace swiftkv {
namespace {

constexpr int kWidth = 16;
constexpr std::chrono::milliseconds kPause(100);
constexpr char kEraseLine[] = "\r\x1b[K";

}  // namespace

void ProgressBar::Draw(const std::string& label, int64_t done, int64_t total) {
  if (!shown_) return;
  const Clock::time_point now = Clock::now();
  const bool begins = label != label_;
  if (begins) {
    label_ = label;
    first_done_ = done;
    start_ = now;
  }
  if (!begins && done < total && now - drawn_ < kPause) return;
  drawn_ = now;
  const int filled = total == 0 ? kWidth : static_cast<int>(kWidth * done / total);
  std::string line = fmt::format("{}{}  [{}{}] {}/{}", kEraseLine, label, std::string(filled, '#'),
                                 std::string(kWidth - filled, '-'), done, total);
  if (done > first_done_) {
    const std::chrono::duration<double> elapsed = now - start_;
    line += "  ETA " +
            DurationText(elapsed.count() / static_cast<double>(done - first_done_) * static_cast<double>(total - done));
  }
  WriteError(line);
}

void ProgressBar::Clear() {
  if (shown_) WriteError(kEraseLine);
}

}  // namespace swiftkv
