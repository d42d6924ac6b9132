#include "cli/line_editor.h"

#include <histedit.h>
#include <unistd.h>

#include <clocale>
#include <csignal>
#include <cstdio>
#include <string_view>
#include <utility>

#include "cli/terminal.h"

namespace swiftkv {
namespace {

constexpr int kRememberedLines = 1000;

}  // namespace

struct LineEditor::State {
  std::string prompt;
  EditLine* edit = nullptr;
  History* history = nullptr;
  bool dropped = false;  // Ctrl-C was typed
  ~State() {
    if (edit != nullptr) el_end(edit);
    if (history != nullptr) history_end(history);
  }
  static State* Of(EditLine* edit) {
    State* state = nullptr;
    el_get(edit, EL_CLIENTDATA, &state);
    return state;
  }
  static char* Prompt(EditLine* edit) { return Of(edit)->prompt.data(); }
  static unsigned char Drop(EditLine* edit, int /*key*/) {
    Of(edit)->dropped = true;
    return CC_EOF;
  }
  static unsigned char Suspend(EditLine* /*edit*/, int /*key*/) {
    raise(SIGTSTP);
    return CC_REDISPLAY;
  }
};

LineEditor::LineEditor(std::unique_ptr<State> state) : state_(std::move(state)) {}
LineEditor::~LineEditor() = default;

std::unique_ptr<LineEditor> LineEditor::Create(const std::string& prompt) {
  if (isatty(STDIN_FILENO) != 1 || isatty(STDERR_FILENO) != 1) return nullptr;
  // Characters, not bytes, whatever the environment says; nothing else of the program looks at the locale.
  std::setlocale(LC_CTYPE, "C.UTF-8");
  auto state = std::make_unique<State>();
  state->prompt = prompt;
  state->edit = el_init("swiftkv", stdin, stderr, stderr);
  state->history = history_init();
  if (state->edit == nullptr || state->history == nullptr) return nullptr;
  HistEvent event;
  history(state->history, &event, H_SETSIZE, kRememberedLines);
  history(state->history, &event, H_SETUNIQUE, 1);
  el_set(state->edit, EL_CLIENTDATA, state.get());
  el_set(state->edit, EL_PROMPT, State::Prompt);
  el_set(state->edit, EL_EDITOR, "emacs");
  el_set(state->edit, EL_SIGNAL, 1);  // a new window size redraws, whoever stops us gets the terminal as it was
  el_set(state->edit, EL_HIST, history, state->history);
  // At the prompt Ctrl-C and Ctrl-Z are keys: a signal that comes while another key is being worked on would not end
  // the wait for the next one.
  el_set(state->edit, EL_SETTY, "-d", "-isig", nullptr);
  el_set(state->edit, EL_ADDFN, "drop-line", "Drop the line", State::Drop);
  el_set(state->edit, EL_ADDFN, "suspend", "Stop the program", State::Suspend);
  el_set(state->edit, EL_BIND, "^C", "drop-line", nullptr);
  el_set(state->edit, EL_BIND, "^Z", "suspend", nullptr);
  return std::unique_ptr<LineEditor>(new LineEditor(std::move(state)));
}

Result<std::optional<std::string>> LineEditor::Next(int64_t max_bytes) {
  while (true) {
    int count = 0;
    el_set(state_->edit, EL_PREP_TERM, 1);  // else keys that come right after the prompt go to the terminal's driver
    const char* const text = el_gets(state_->edit, &count);
    const bool dropped = std::exchange(state_->dropped, false) || Interrupted() == SIGINT;
    if (Interrupted() == SIGINT) ClearInterrupt();  // sent to the process, or meant for the answer before
    if (Interrupted() != 0) return MakeError(ErrorCode::kCancelled, "interrupted");
    if (text == nullptr || count <= 0) {
      WriteError("\n");
      if (dropped) continue;
      return std::optional<std::string>();
    }
    std::string_view line(text, static_cast<size_t>(count));
    if (line.ends_with('\n')) line.remove_suffix(1);
    if (static_cast<int64_t>(line.size()) > max_bytes) {
      return InvalidInput("a line of the input is longer than {} bytes", max_bytes);
    }
    HistEvent event;
    if (!line.empty()) history(state_->history, &event, H_ENTER, text);
    return std::optional<std::string>(line);
  }
}

}  // namespace swiftkv
