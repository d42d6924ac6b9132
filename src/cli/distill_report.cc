#include "cli/distill_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/generation.h"
#include "cli/report_parts.h"
#include "distill/progress.h"
#include "engine/model_costs.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

std::vector<QualityRow> Rows(const DistillReport& report) {
  std::vector<QualityRow> rows;
  for (const HeldOutMetrics& after : report.quality) {
    QualityRow row{after.source, after.quality};
    const auto before = std::find_if(report.before.begin(), report.before.end(),
                                     [&](const HeldOutMetrics& line) { return line.source == after.source; });
    if (before != report.before.end()) row.before = before->quality;
    rows.push_back(std::move(row));
  }
  return rows;
}

double TokensPerSecond(const DistillReport& report) {
  return report.seconds > 0 ? static_cast<double>(report.tokens) / report.seconds : 0;
}

std::string TrainingText(const DistillReport& report) {
  return fmt::format("{} steps, {} tokens, {} ({:.0f} tok/s)", report.steps, report.tokens,
                     DurationText(report.seconds), TokensPerSecond(report));
}

std::string QualitySection(const DistillReport& report) {
  const std::vector<QualityRow> rows = Rows(report);
  std::string text;
  if (!rows.empty()) {
    text += "## Quality\n\nMeasured against the base model on text that was not trained on (KL in nats, T = 1):\n\n" +
            CardQualityTable(rows) + "\n";
  }
  if (!report.loss_curve.empty()) text += fmt::format("![loss by step]({})\n\n", report.loss_curve);
  return text;
}

std::string UseSection(const DistillReport& report) {
  const std::string command = report.options.adapter ? fmt::format("swiftkv chat {} --adapter DIR\n", report.origin)
                                                     : std::string("swiftkv chat DIR\n");
  return fmt::format("## Use\n\nDIR is this folder.\n\n{}\n", CodeBlock(command, ""));
}

std::string DataSection(const DistillReport& report) {
  if (report.sources.empty()) return "";
  std::string text = "## Data\n\n| text | use | licence |\n| --- | --- | --- |\n";
  for (const DistillReport::Source& source : report.sources) {
    text += fmt::format("| {} | {} | {} |\n", MarkdownCell(source.name), MarkdownCell(source.use),
                        source.licence.empty() ? "not stated" : MarkdownCell(source.licence));
  }
  return text + "\n";
}

std::string ReproduceSection(const DistillReport& report) {
  return fmt::format("## Recipe\n\nMade by swiftkv {} with\n\n{}\nwhose flags are part of the recipe:\n\n{}\n",
                     SWIFTKV_VERSION, CodeBlock(report.command, ""), CodeBlock(report.recipe, "yaml"));
}

}  // namespace

std::string DistillReportText(const DistillReport& report) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<18} {}\n", name, value);
  };
  line("model", report.origin);
  line("layers", LayersText(report.student));
  line("start", report.start);
  line("training", TrainingText(report));
  for (const HeldOutMetrics& held_out : report.quality) line(held_out.source, QualityText(held_out.quality));
  line("prefill skipped", SkippedText(report.student));
  line("K/V per token", KvText(report.student));
  line("peak memory", fmt::format("{} MiB", report.peak_bytes >> 20));
  line("written", fmt::format("{} ({}, {})", report.options.folder, report.options.adapter ? "adapter" : "checkpoint",
                              Name(report.dtype)));
  return text;
}

std::string DistillReportJson(const DistillReport& report) {
  const ModelCosts costs = ComputeModelCosts(report.student);
  Json json = {{"model", report.origin},
               {"output", report.options.folder},
               {"format", report.options.adapter ? "adapter" : "checkpoint"},
               {"dtype", Name(report.dtype)},
               {"num_hidden_layers", report.student.num_hidden_layers},
               {"num_key_value_layers", report.student.num_key_value_layers},
               {"key_value_group_size", report.student.key_value_group_size},
               {"start", report.start},
               {"trained_parameters", costs.swiftkv_parameters},
               {"steps", report.steps},
               {"tokens", report.tokens},
               {"seconds", report.seconds},
               {"tok_s", TokensPerSecond(report)}};
  for (const QualityRow& row : Rows(report)) {
    json["held_out"][row.name] = QualityJson(row.quality);
    if (row.before) json["held_out"][row.name]["before_training"] = QualityJson(*row.before);
  }
  json["skipped_prefill_share"] = costs.skipped_prefill_share();
  json["kv_bytes_per_token_bf16"] = {{"base", 2 * costs.base_kv_elements}, {"swiftkv", 2 * costs.swiftkv_kv_elements}};
  json["peak_bytes"] = report.peak_bytes;
  return JsonLine(json);
}

std::string DistillModelCard(const DistillReport& report) {
  return fmt::format(
      "# SwiftKV {} of {}\n\n"
      "{} Distilled from the base model's own\n"
      "logits; only norm_swiftkv and the q, k and v projections of the later layers were trained.\n\n"
      "| | |\n| --- | --- |\n"
      "{}"
      "| trained parameters | {} |\n"
      "| start | {} |\n"
      "| training | {} |\n\n"
      "{}{}{}{}"
      "The base model's licence applies.\n",
      report.options.adapter ? "adapter" : "version", report.origin, CardIntroduction(report.student),
      CardModelRows(report.student), ComputeModelCosts(report.student).swiftkv_parameters, MarkdownCell(report.start),
      TrainingText(report), QualitySection(report), UseSection(report), DataSection(report), ReproduceSection(report));
}

}  // namespace swiftkv
