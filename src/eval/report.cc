#include "eval/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <utility>

#include "eval/filters.h"
#include "eval/statistics.h"

namespace swiftkv {
namespace {

std::string Percent(double share) { return fmt::format("{:.2f}", 100 * share); }
std::string Signed(double share) { return fmt::format("{:+.2f}", 100 * share); }
std::string PercentWithError(const Estimate& estimate) {
  return fmt::format("{:.2f} ± {:.2f}", 100 * estimate.mean, 100 * estimate.standard_error);
}

std::string Title(const VariantInfo& variant) { return variant.name == "swiftkv" ? "SwiftKV" : variant.name; }

// Of all documents, or of the groups where these count alike.
Estimate TaskMean(const TaskResult& result, std::span<const double> values) {
  return result.task->info().groups_count_alike ? WeightedMeanOf(values, result.GroupWeights()) : MeanOf(values);
}

// The mean of several tasks' estimates, each counting the same.
Estimate Average(const std::vector<Estimate>& estimates) {
  Estimate average;
  double variance = 0;
  const auto count = static_cast<double>(estimates.size());
  for (const Estimate& estimate : estimates) {
    average.mean += estimate.mean / count;
    average.count += estimate.count;
    variance += estimate.standard_error * estimate.standard_error;
  }
  average.standard_error = std::sqrt(variance) / count;
  return average;
}

// What a cell of Markdown or HTML may not hold as it stands.
std::string Escape(std::string_view text, bool html) {
  std::string escaped;
  for (const char c : text) {
    if (html && c == '<') {
      escaped += "&lt;";
    } else if (html && c == '&') {
      escaped += "&amp;";
    } else if (!html && (c == '|' || c == '<' || c == '*' || c == '\\')) {
      escaped += {'\\', c};
    } else {
      escaped += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return escaped;
}

Table PerplexityTable(const RunResults& run) {
  Table table{.title = "Perplexity",
              .header = {"text", "model", "tokens", "by token", "by word", "by byte", "bits a byte"},
              .rows = {}};
  for (const TextPerplexity& text : run.perplexities) {
    table.rows.push_back({text.text, text.variant, fmt::format("{}", text.tokens),
                          fmt::format("{:.3f}", text.token_perplexity()), fmt::format("{:.3f}", text.word_perplexity()),
                          fmt::format("{:.4f}", text.byte_perplexity()), fmt::format("{:.4f}", text.bits_per_byte())});
  }
  return table;
}

Table FidelityTable(const RunResults& run) {
  Table table{
      .title = "Fidelity to base",
      .header = {"text", "model", "positions", "tokens", "mean KL", "p99 KL", "top-1", "top-5", "base ppl", "ppl"},
      .rows = {},
      .note =
          "KL(base || model) in nats, base in its own precision with its own cache; agreement of the most likely "
          "token and of the five most likely, in percent; positions in a prompt."};
  for (const TextFidelity& text : run.fidelities) {
    const auto add = [&](const Fidelity& fidelity, const std::string& positions) {
      table.rows.push_back({text.text, text.variant, positions, fmt::format("{}", fidelity.tokens),
                            fmt::format("{:.4f} ± {:.4f}", fidelity.mean_kl, fidelity.kl_standard_error),
                            fmt::format("{:.3f}", fidelity.p99_kl), Percent(fidelity.top1_agreement),
                            Percent(fidelity.top5_agreement), fmt::format("{:.2f}", std::exp(fidelity.base_nll)),
                            fmt::format("{:.2f}", std::exp(fidelity.nll))});
    };
    for (const Fidelity& bucket : text.by_position) add(bucket, fmt::format("{}-{}", bucket.begin, bucket.end - 1));
    add(text.all, "all");
  }
  return table;
}

std::string Cell(const nlohmann::ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

Table SettingsTable(const RunResults& run) {
  Table table{.title = "Settings", .header = {"setting", "value"}, .rows = {}};
  const nlohmann::ordered_json settings = SettingsJson(run);
  for (const auto& [name, value] : settings.items()) {
    if (name == "tasks") continue;
    if (value.is_object()) {
      for (const auto& [inner, inner_value] : value.items()) {
        table.rows.push_back({fmt::format("{} ({})", name, inner), Cell(inner_value)});
      }
    } else {
      table.rows.push_back({name, Cell(value)});
    }
  }
  return table;
}

std::vector<Table> Tables(const RunResults& run) {
  std::vector<Table> tables;
  if (!run.tasks.empty()) tables.insert(tables.end(), {ScoreTable(run), DetailTable(run)});
  if (!run.perplexities.empty()) tables.push_back(PerplexityTable(run));
  if (!run.fidelities.empty()) tables.push_back(FidelityTable(run));
  return tables;
}

// Three rows: a variant's paired differences from base, their standard errors, McNemar's p.
void AddDifferences(const RunResults& run, size_t variant, Table* table) {
  std::vector<Estimate> differences;
  std::vector<std::string> tests = {"McNemar p"};
  for (const TaskResult& result : run.tasks) {
    const std::vector<double> base = result.Scores(0, 0);
    const std::vector<double> swiftkv = result.Scores(variant, 0);
    differences.push_back(TaskMean(result, Differences(base, swiftkv)));
    const bool binary = result.task->info().metrics[0].is_binary;
    tests.push_back(binary ? fmt::format("{:.3f}", TestMcNemar(base, swiftkv).p) : "-");
  }
  differences.push_back(Average(differences));
  tests.emplace_back("-");
  const bool single = run.compared().size() == 1;
  std::vector<std::string> means = {single ? "difference" : Title(run.variants[variant]) + " - base"};
  std::vector<std::string> errors = {"± standard error"};
  for (const Estimate& difference : differences) {
    means.push_back(Signed(difference.mean));
    errors.push_back(Percent(difference.standard_error));
  }
  table->rows.insert(table->rows.end(), {means, errors, tests});
}

// One evaluation's metric for one variant.
std::vector<std::string> DetailRow(const RunResults& run, const TaskResult& result, size_t m, size_t variant) {
  const TaskInfo& info = result.task->info();
  const Metric metric = info.groups_count_alike ? Macro(info.metrics[m]) : info.metrics[m];
  const VariantResult& of_variant = result.variants[variant];
  const std::vector<double> scores = result.Scores(variant, m);
  std::vector<std::string> row = {info.name,
                                  metric.filter == "none" ? metric.name : metric.name + ", " + metric.filter,
                                  std::to_string(info.num_fewshot),
                                  std::to_string(result.documents.size()),
                                  Title(run.variants[variant]),
                                  PercentWithError(TaskMean(result, scores))};
  if (!run.compared().empty()) {
    const std::vector<double> base = result.Scores(0, m);
    const McNemar test = TestMcNemar(base, scores);
    const bool tested = variant > 0 && metric.is_binary;
    row.push_back(variant > 0 ? PercentWithError(TaskMean(result, Differences(base, scores))) : "-");
    row.push_back(tested ? std::to_string(test.only_first) : "-");
    row.push_back(tested ? std::to_string(test.only_second) : "-");
  }
  row.insert(row.end(), {std::to_string(of_variant.truncated()), std::to_string(of_variant.at_length()),
                         fmt::format("{:.1f}", of_variant.seconds)});
  return row;
}

}  // namespace

Table ScoreTable(const RunResults& run) {
  Table table{.title = "Scores in percent", .header = {""}, .rows = {}};
  for (const TaskResult& result : run.tasks) table.header.push_back(result.task->info().title);
  table.header.emplace_back("Avg");
  for (size_t v = 0; v < run.variants.size(); ++v) {
    std::vector<std::string>& row = table.rows.emplace_back(1, Title(run.variants[v]));
    std::vector<Estimate> estimates;
    for (const TaskResult& result : run.tasks) {
      estimates.push_back(TaskMean(result, result.Scores(v, 0)));
      row.push_back(Percent(estimates.back().mean));
    }
    row.push_back(Percent(Average(estimates).mean));
  }
  for (const size_t variant : run.compared()) AddDifferences(run, variant, &table);
  return table;
}

Table DetailTable(const RunResults& run) {
  Table table{.title = "Evaluations", .header = {"task", "metric", "shots", "documents", "model", "score"}, .rows = {}};
  if (!run.compared().empty()) table.header.insert(table.header.end(), {"difference", "only base", "only SwiftKV"});
  table.header.insert(table.header.end(), {"cut prompts", "cut answers", "seconds of this run"});
  for (const TaskResult& result : run.tasks) {
    for (size_t m = 0; m < result.task->info().metrics.size(); ++m) {
      for (size_t v = 0; v < run.variants.size(); ++v) table.rows.push_back(DetailRow(run, result, m, v));
    }
  }
  return table;
}

std::string TextTable(const Table& table) {
  std::vector<size_t> widths;
  const auto widen = [&](const std::vector<std::string>& row) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], static_cast<size_t>(Characters(row[i])));
    }
  };
  widen(table.header);
  for (const auto& row : table.rows) widen(row);
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - static_cast<size_t>(Characters(row[i])), ' ');
      text += i == 0 ? row[i] + space : "  " + space + row[i];
    }
    text += '\n';
  };
  add(table.header);
  for (const auto& row : table.rows) add(row);
  if (!table.note.empty()) text += table.note + "\n";
  return text;
}

std::string MarkdownTable(const Table& table) {
  std::string text = "|";
  for (const std::string& cell : table.header) text += fmt::format(" {} |", Escape(cell, /*html=*/false));
  text += "\n|";
  for (size_t i = 0; i < table.header.size(); ++i) text += i == 0 ? " --- |" : " ---: |";
  text += '\n';
  for (const auto& row : table.rows) {
    text += '|';
    for (const std::string& cell : row) text += fmt::format(" {} |", Escape(cell, /*html=*/false));
    text += '\n';
  }
  if (!table.note.empty()) text += fmt::format("\n{}\n", table.note);
  return text;
}

std::string HtmlTable(const Table& table) {
  std::string text = "<table>\n<tr>";
  for (const std::string& cell : table.header) text += fmt::format("<th>{}</th>", Escape(cell, /*html=*/true));
  text += "</tr>\n";
  for (const auto& row : table.rows) {
    text += "<tr>";
    for (const std::string& cell : row) text += fmt::format("<td>{}</td>", Escape(cell, /*html=*/true));
    text += "</tr>\n";
  }
  text += "</table>\n";
  if (!table.note.empty()) text += fmt::format("<p>{}</p>\n", Escape(table.note, /*html=*/true));
  return text;
}

std::string TextReport(const RunResults& run) {
  std::string text;
  for (const Table& table : Tables(run)) {
    text += fmt::format("{}{}\n{}", text.empty() ? "" : "\n", table.title, TextTable(table));
  }
  return text;
}

std::string MarkdownReport(const RunResults& run) {
  std::string text = fmt::format("# Evaluation of {}\n", Escape(run.model, /*html=*/false));
  std::vector<Table> tables = Tables(run);
  tables.push_back(SettingsTable(run));
  for (const Table& table : tables) text += fmt::format("\n## {}\n\n{}", table.title, MarkdownTable(table));
  return text;
}

std::string HtmlReport(const RunResults& run) {
  const std::string title = fmt::format("Evaluation of {}", Escape(run.model, /*html=*/true));
  std::string text = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{0}</title>\n<style>\n"
      "body {{ font-family: sans-serif; margin: 2em; }}\ntable {{ border-collapse: collapse; }}\n"
      "th, td {{ padding: 0.3em 0.8em; border-bottom: 1px solid #ccc; text-align: right; }}\n"
      "th:first-child, td:first-child {{ text-align: left; }}\n</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
      title);
  std::vector<Table> tables = Tables(run);
  tables.push_back(SettingsTable(run));
  for (const Table& table : tables) text += fmt::format("<h2>{}</h2>\n{}", table.title, HtmlTable(table));
  return text + "</body>\n</html>\n";
}

}  // namespace swiftkv
