// Lines typed at a terminal: editing, history, lines of any length (libedit).
//
//   std::unique_ptr<LineEditor> editor = LineEditor::Create("> ");
//   if (editor != nullptr) {
//     SWIFTKV_ASSIGN_OR_RETURN(const std::optional<std::string> line, editor->Next());
//   }
#ifndef SWIFTKV_CLI_LINE_EDITOR_H_
#define SWIFTKV_CLI_LINE_EDITOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"

namespace swiftkv {

class LineEditor {
 public:
  // Null unless standard input and standard error, on which it draws, are terminals.
  static std::unique_ptr<LineEditor> Create(const std::string& prompt);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // A line without its newline; nullopt at Ctrl-D or when the terminal has gone. Ctrl-C drops what was typed and asks
  // anew. Errors: kCancelled (SIGTERM), kInvalidInput (longer than max_bytes).
  Result<std::optional<std::string>> Next(int64_t max_bytes);

 private:
  struct State;
  explicit LineEditor(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_LINE_EDITOR_H_
