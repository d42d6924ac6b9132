// A bar on a terminal's last line, for work whose end is known.
//
//   ProgressBar bar(isatty(STDERR_FILENO) == 1);
//   bar.Draw("GSM8K base", 120, 1319);   // GSM8K base  [###-------------] 120/1319  ETA 12:34
//   bar.Clear();
#ifndef SWIFTKV_CLI_PROGRESS_BAR_H_
#define SWIFTKV_CLI_PROGRESS_BAR_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace swiftkv {

class ProgressBar {
 public:
  // `shown` false: nothing is ever drawn.
  explicit ProgressBar(bool shown) : shown_(shown) {}
  // Another `label` begins another estimate, from what was done by then.
  void Draw(const std::string& label, int64_t done, int64_t total);
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  bool shown_;
  std::string label_;
  int64_t first_done_ = 0;
  Clock::time_point start_;
  Clock::time_point drawn_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_PROGRESS_BAR_H_
