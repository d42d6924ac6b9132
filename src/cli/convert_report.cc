#include "cli/convert_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/generation.h"
#include "cli/report_parts.h"
#include "engine/model_costs.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

std::string_view Name(TokenWeights weights) {
  switch (weights) {
    case TokenWeights::kUniform:
      return "uniform";
    case TokenWeights::kLayer:
      return "layer";
    case TokenWeights::kHead:
      return "head";
  }
  return "";
}

std::string_view Name(CompressedFormat format) {
  switch (format) {
    case CompressedFormat::kFp8:
      return "FP8";
    case CompressedFormat::kInt8:
      return "INT8";
    case CompressedFormat::kInt4:
      return "INT4";
  }
  return "";
}

// What the matrices are written in: "BF16", or "INT8 projections, other tensors BF16".
std::string StoredText(const ConvertReport& report) {
  std::string dtype(swiftkv::Name(report.dtype));
  if (!report.options.quantization) return dtype;
  return fmt::format("{} projections, other tensors {}", Name(*report.options.quantization), dtype);
}

std::string RecipeText(const ConvertReport& report) {
  if (!report.adapter.empty()) return fmt::format("none: the tensors of {}", report.adapter);
  if (report.calibration_tokens == 0) return fmt::format("none: init {}", report.init);
  return fmt::format("{}; token weights {}, ridge {:g}", report.text, Name(report.token_weights), report.lambda);
}

}  // namespace

std::string ReportText(const ConvertReport& report) {
  const ModelConfig& student = report.student;
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<18} {}\n", name, value);
  };
  line("model", report.origin);
  line("layers", LayersText(student));
  for (const ConvertReport::Tried& tried : report.tried) {
    line("tried", fmt::format("n = {}: {}", tried.num_key_value_layers, QualityText(tried.quality)));
  }
  line("calibration", RecipeText(report));
  line("quality", QualityText(report.quality));
  for (const ConvertReport::Kind& kind : report.kinds) {
    if (report.kinds.size() > 1) line("  " + kind.name, QualityText(kind.quality));
  }
  line("prefill skipped", SkippedText(student));
  line("K/V per token", KvText(student));
  line("time", fmt::format("{:.1f} s: text {:.1f}, calibration {:.1f}, measuring {:.1f}", report.seconds,
                           report.text_seconds, report.calibration_seconds, report.measure_seconds));
  line("peak memory", fmt::format("{} MiB", report.peak_bytes >> 20));
  line("written", fmt::format("{} ({}, {})", report.options.folder, report.options.adapter ? "adapter" : "checkpoint",
                              StoredText(report)));
  return text;
}

std::string ReportJson(const ConvertReport& report) {
  const ModelConfig& student = report.student;
  const ModelCosts costs = ComputeModelCosts(student);
  Json json = {{"model", report.origin},
               {"output", report.options.folder},
               {"format", report.options.adapter ? "adapter" : "checkpoint"},
               {"dtype", swiftkv::Name(report.dtype)},
               {"stored", StoredText(report)},
               {"num_hidden_layers", student.num_hidden_layers},
               {"num_key_value_layers", student.num_key_value_layers},
               {"key_value_group_size", student.key_value_group_size},
               {"init", report.init},
               {"text", report.text}};
  if (!report.adapter.empty()) json["adapter"] = report.adapter;
  if (report.calibration_tokens > 0) {
    json["calibration"] = {
        {"tokens", report.calibration_tokens}, {"token_weights", Name(report.token_weights)}, {"ridge", report.lambda}};
    for (const LayerFit& fit : report.fits) {
      json["calibration"]["layers"].push_back(
          {{"layer", fit.layer}, {"k_unexplained", fit.k_unexplained}, {"v_unexplained", fit.v_unexplained}});
    }
  }
  json["quality"] = QualityJson(report.quality);
  for (const ConvertReport::Kind& kind : report.kinds) json["kinds"][kind.name] = QualityJson(kind.quality);
  for (const ConvertReport::Tried& tried : report.tried) {
    json["tried"].push_back(
        {{"num_key_value_layers", tried.num_key_value_layers}, {"quality", QualityJson(tried.quality)}});
  }
  json["skipped_prefill_share"] = costs.skipped_prefill_share();
  json["kv_bytes_per_token_bf16"] = {{"base", 2 * costs.base_kv_elements}, {"swiftkv", 2 * costs.swiftkv_kv_elements}};
  json["seconds"] = {{"total", report.seconds},
                     {"text", report.text_seconds},
                     {"calibration", report.calibration_seconds},
                     {"measuring", report.measure_seconds}};
  json["peak_bytes"] = report.peak_bytes;
  return JsonLine(json);
}

std::string ModelCard(const ConvertReport& report) {
  std::vector<QualityRow> rows;
  for (const ConvertReport::Kind& kind : report.kinds) rows.push_back({kind.name, kind.quality});
  return fmt::format(
      "# SwiftKV {} of {}\n\n"
      "{} Made by swiftkv {}, {}.\n\n"
      "| | |\n| --- | --- |\n"
      "{}"
      "| start | {} |\n"
      "| calibration | {} |\n"
      "| stored in | {} |\n\n"
      "Measured against the base model{}:\n\n"
      "{}\n"
      "The base model's licence applies.{}\n",
      report.options.adapter ? "adapter" : "version", report.origin, CardIntroduction(report.student), SWIFTKV_VERSION,
      report.adapter.empty() ? "without training" : "from an adapter", CardModelRows(report.student), report.init,
      MarkdownCell(RecipeText(report)), StoredText(report), report.options.quantization ? ", before quantization" : "",
      CardQualityTable(rows), report.options.adapter ? " Use it with `--adapter` on the base model." : "");
}

}  // namespace swiftkv
