// What the reports and model cards of `convert` and `distill` have in common.
#ifndef SWIFTKV_CLI_REPORT_PARTS_H_
#define SWIFTKV_CLI_REPORT_PARTS_H_

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"
#include "model/quality.h"

namespace swiftkv {

double Perplexity(double cross_entropy);

// One line for people: "KL 0.0340, top-1 agreement 90.0 %, perplexity 12.10 (base 11.90) on 4096 held-out tokens".
std::string QualityText(const Quality& quality);
nlohmann::ordered_json QualityJson(const Quality& quality);

// "SingleInputKV", or with AcrossKV.
std::string SharingName(const ModelConfig& student);
// "L = 30, n = 15, g = 1: SingleInputKV"
std::string LayersText(const ModelConfig& student);
// What of a prompt is skipped, and the bytes of K/V per token.
std::string SkippedText(const ModelConfig& student);
std::string KvText(const ModelConfig& student);

// --- Markdown.

// What SwiftKV does in this model: two sentences.
std::string CardIntroduction(const ModelConfig& student);
// Rows of a table of two columns: the fields of its config, and what they save.
std::string CardModelRows(const ModelConfig& student);

struct QualityRow {
  std::string name;
  Quality quality;
  std::optional<Quality> before = {};  // before training
};
// A table with a row for each text, and their mean, each counting the same, where there are several.
std::string CardQualityTable(std::span<const QualityRow> rows);
Quality MeanQuality(std::span<const Quality> qualities);

// `text` in a cell of a table, whatever it holds.
std::string MarkdownCell(std::string_view text);
// `text` between fences that nothing in it can end.
std::string CodeBlock(std::string_view text, std::string_view language);

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_REPORT_PARTS_H_
