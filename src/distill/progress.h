// How far a training run is, for people: a bar that is drawn over and over on a terminal, a line now and then
// elsewhere.
//
//   Progress progress({.total_steps = 1000, .terminal = isatty(STDERR_FILENO) == 1}, WriteError);
//   progress.Step(metrics);                     // after each step
//   progress.Note("held-out novels: KL 0.21");  // a line of its own, the bar stays below it
//   progress.Finish();
//
//   step 120/1000 [###-------------] loss 0.3210  KL 0.3100  agreement 81.2 %  1523 tok/s  ETA 12:34
//
// Figures are means over the last steps (at most kWindow).
#ifndef SWIFTKV_DISTILL_PROGRESS_H_
#define SWIFTKV_DISTILL_PROGRESS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "distill/metrics.h"

namespace swiftkv {

class Progress {
 public:
  struct Options {
    int64_t total_steps = 0;
    bool terminal = false;
    int columns = 80;             // of the terminal; a longer line would not be drawn over
    double redraw_seconds = 0.1;  // of the bar, at most that often
    double line_seconds = 30;     // between lines where there is no terminal
  };
  static constexpr size_t kWindow = 32;

  Progress(const Options& options, std::function<void(std::string_view)> write)
      : options_(options), write_(std::move(write)) {}
  void Step(const StepMetrics& metrics);
  void Note(std::string_view line);
  // The last figures, on a line that stays.
  void Finish();

 private:
  std::string Text() const;
  void Draw(std::string_view line);

  Options options_;
  std::function<void(std::string_view)> write_;
  std::deque<StepMetrics> window_;  // newest last
  double shown_seconds_ = 0;
  bool shown_ = false;    // anything at all
  bool current_ = false;  // the newest step is shown
  size_t drawn_ = 0;      // characters of the bar that stand on the terminal's line
};

// "12:34" (minutes, seconds) or "3:05:09".
std::string DurationText(double seconds);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_PROGRESS_H_
