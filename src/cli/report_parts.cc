#include "cli/report_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/model_costs.h"

namespace swiftkv {

double Perplexity(double cross_entropy) { return std::exp(cross_entropy); }

std::string QualityText(const Quality& quality) {
  return fmt::format("KL {:.4f}, top-1 agreement {:.1f} %, perplexity {:.2f} (base {:.2f}) on {} held-out tokens",
                     quality.kl, 100 * quality.agreement, Perplexity(quality.student_nll),
                     Perplexity(quality.teacher_nll), quality.tokens);
}

nlohmann::ordered_json QualityJson(const Quality& quality) {
  return {{"tokens", quality.tokens},
          {"kl", quality.kl},
          {"top1_agreement", quality.agreement},
          {"base_cross_entropy", quality.teacher_nll},
          {"swiftkv_cross_entropy", quality.student_nll},
          {"base_perplexity", Perplexity(quality.teacher_nll)},
          {"swiftkv_perplexity", Perplexity(quality.student_nll)}};
}

std::string SharingName(const ModelConfig& student) {
  return student.key_value_group_size == 1 ? "SingleInputKV" : "SingleInputKV and AcrossKV";
}

std::string LayersText(const ModelConfig& student) {
  return fmt::format("L = {}, n = {}, g = {}: {}", student.num_hidden_layers, student.num_key_value_layers,
                     student.key_value_group_size, SharingName(student));
}

std::string SkippedText(const ModelConfig& student) {
  const auto layers = static_cast<double>(student.num_hidden_layers);
  const auto skipped = layers - static_cast<double>(student.num_key_value_layers);
  return fmt::format("{:.1f} % of projections and MLPs, {:.1f} % of attention",
                     100 * ComputeModelCosts(student).skipped_prefill_share(), 100 * skipped / layers);
}

std::string KvText(const ModelConfig& student) {
  const ModelCosts costs = ComputeModelCosts(student);
  return fmt::format("{} bytes in BF16 (base {})", 2 * costs.swiftkv_kv_elements, 2 * costs.base_kv_elements);
}

std::string CardIntroduction(const ModelConfig& student) {
  return fmt::format(
      "{} (arXiv 2410.03960): prompt tokens run {} of {} layers; the keys and values of the later layers\n"
      "come from the output of layer {}, in groups of {}.",
      SharingName(student), student.num_key_value_layers, student.num_hidden_layers, student.num_key_value_layers - 1,
      student.key_value_group_size);
}

std::string CardModelRows(const ModelConfig& student) {
  return fmt::format(
      "| num_key_value_layers / num_hidden_layers | {} / {} |\n"
      "| key_value_group_size | {} |\n"
      "| prefill skipped | {} |\n"
      "| K/V per token | {} |\n",
      student.num_key_value_layers, student.num_hidden_layers, student.key_value_group_size, SkippedText(student),
      KvText(student));
}

Quality MeanQuality(std::span<const Quality> qualities) {
  Quality mean;
  const auto count = static_cast<double>(qualities.size());
  for (const Quality& quality : qualities) {
    mean.tokens += quality.tokens;
    mean.kl += quality.kl / count;
    mean.agreement += quality.agreement / count;
    mean.teacher_nll += quality.teacher_nll / count;
    mean.student_nll += quality.student_nll / count;
  }
  return mean;
}

std::string CardQualityTable(std::span<const QualityRow> rows) {
  std::vector<QualityRow> all(rows.begin(), rows.end());
  const bool with_before =
      !all.empty() && std::all_of(all.begin(), all.end(), [](const QualityRow& row) { return row.before.has_value(); });
  if (rows.size() > 1) {
    std::vector<Quality> after, before;
    for (const QualityRow& row : rows) {
      after.push_back(row.quality);
      before.push_back(row.before.value_or(Quality()));
    }
    all.push_back({"mean", MeanQuality(after), MeanQuality(before)});
  }
  std::string table = fmt::format(
      "| held-out text | tokens | KL(base, SwiftKV) |{} top-1 agreement | perplexity | base's perplexity | change |\n"
      "| --- | --- | --- |{} --- | --- | --- | --- |\n",
      with_before ? " before training |" : "", with_before ? " --- |" : "");
  for (const QualityRow& row : all) {
    const Quality& q = row.quality;
    const std::string before = with_before ? fmt::format(" {:.4f} |", row.before->kl) : "";
    table += fmt::format("| {} | {} | {:.4f} |{} {:.1f} % | {:.2f} | {:.2f} | {:+.1f} % |\n", MarkdownCell(row.name),
                         q.tokens, q.kl, before, 100 * q.agreement, Perplexity(q.student_nll),
                         Perplexity(q.teacher_nll), 100 * (Perplexity(q.student_nll - q.teacher_nll) - 1));
  }
  return table;
}

std::string MarkdownCell(std::string_view text) {
  std::string cell;
  for (const char c : text) {
    if (c == '|' || c == '\\' || c == '`' || c == '<' || c == '*' || c == '[') cell += '\\';
    cell += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return cell;
}

std::string CodeBlock(std::string_view text, std::string_view language) {
  size_t longest = 0;
  size_t run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(std::max<size_t>(3, longest + 1), '`');
  return fmt::format("{}{}\n{}{}{}\n", fence, language, text, text.ends_with('\n') ? "" : "\n", fence);
}

}  // namespace swiftkv
