// What people read of a run: tables like the model card's, as text for a terminal, Markdown and HTML.
//
//   Write(TextReport(run));
//   WriteFile("report.md", MarkdownReport(run));
#ifndef SWIFTKV_EVAL_REPORT_H_
#define SWIFTKV_EVAL_REPORT_H_

#include <string>
#include <vector>

#include "eval/results.h"

namespace swiftkv {

struct Table {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // of header.size() cells
  std::string note = {};                       // below it
};

// A row for each model and a column for each evaluation, in percent, with their average; then, for each SwiftKV model,
// the paired difference from base, its standard error and McNemar's p.
Table ScoreTable(const RunResults& run);
// A row for each evaluation, metric and model: documents, shots, score with its standard error, difference from base.
Table DetailTable(const RunResults& run);

std::string TextReport(const RunResults& run);
std::string MarkdownReport(const RunResults& run);
// One file without references to others.
std::string HtmlReport(const RunResults& run);

// Columns aligned by spaces, the first to the left, the others to the right.
std::string TextTable(const Table& table);
std::string MarkdownTable(const Table& table);
std::string HtmlTable(const Table& table);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_REPORT_H_
