#include "cli/convert_report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/generation.h"
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

double Perplexity(double nll) { return std::exp(nll); }

Json QualityJson(const Quality& quality) {
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

std::string QualityText(const Quality& quality) {
  return fmt::format("KL {:.4f}, top-1 agreement {:.1f} %, perplexity {:.2f} (base {:.2f}) on {} held-out tokens",
                     quality.kl, 100 * quality.agreement, Perplexity(quality.student_nll),
                     Perplexity(quality.teacher_nll), quality.tokens);
}

std::string RecipeText(const ConvertReport& report) {
  if (report.calibration_tokens == 0) return fmt::format("none: init {}", report.init);
  return fmt::format("{}; token weights {}, ridge {:g}", report.text, Name(report.token_weights), report.lambda);
}

}  // namespace

std::string ReportText(const ConvertReport& report) {
  const ModelConfig& student = report.student;
  const ModelCosts costs = ComputeModelCosts(student);
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<18} {}\n", name, value);
  };
  line("model", report.origin);
  line("layers", fmt::format("L = {}, n = {}, g = {}: {}", student.num_hidden_layers, student.num_key_value_layers,
                             student.key_value_group_size, SharingName(student)));
  for (const ConvertReport::Tried& tried : report.tried) {
    line("tried", fmt::format("n = {}: {}", tried.num_key_value_layers, QualityText(tried.quality)));
  }
  line("calibration", RecipeText(report));
  line("quality", QualityText(report.quality));
  for (const ConvertReport::Kind& kind : report.kinds) {
    if (report.kinds.size() > 1) line("  " + kind.name, QualityText(kind.quality));
  }
  line("prefill skipped",
       fmt::format("{:.1f} % of projections and MLPs, {:.1f} % of attention", 100 * costs.skipped_prefill_share(),
                   100.0 * static_cast<double>(student.num_hidden_layers - student.num_key_value_layers) /
                       static_cast<double>(student.num_hidden_layers)));
  line("K/V per token",
       fmt::format("{} bytes in BF16 (base {})", 2 * costs.swiftkv_kv_elements, 2 * costs.base_kv_elements));
  line("time", fmt::format("{:.1f} s: text {:.1f}, calibration {:.1f}, measuring {:.1f}", report.seconds,
                           report.text_seconds, report.calibration_seconds, report.measure_seconds));
  line("peak memory", fmt::format("{} MiB", report.peak_bytes >> 20));
  line("written", fmt::format("{} ({}, {})", report.options.folder, report.options.adapter ? "adapter" : "checkpoint",
                              swiftkv::Name(report.dtype)));
  return text;
}

std::string ReportJson(const ConvertReport& report) {
  const ModelConfig& student = report.student;
  const ModelCosts costs = ComputeModelCosts(student);
  Json json = {{"model", report.origin},
               {"output", report.options.folder},
               {"format", report.options.adapter ? "adapter" : "checkpoint"},
               {"dtype", swiftkv::Name(report.dtype)},
               {"num_hidden_layers", student.num_hidden_layers},
               {"num_key_value_layers", student.num_key_value_layers},
               {"key_value_group_size", student.key_value_group_size},
               {"init", report.init},
               {"text", report.text}};
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
  const ModelConfig& student = report.student;
  const ModelCosts costs = ComputeModelCosts(student);
  const Quality& quality = report.quality;
  return fmt::format(
      "# SwiftKV {kind} of {origin}\n\n"
      "{sharing} (arXiv 2410.03960): prompt tokens run {n} of {layers} layers; the keys and values of the later "
      "layers\n"
      "come from the output of layer {before}, in groups of {g}. Made by swiftkv {version}, without training.\n\n"
      "| | |\n| --- | --- |\n"
      "| num_key_value_layers / num_hidden_layers | {n} / {layers} |\n"
      "| key_value_group_size | {g} |\n"
      "| start | {init} |\n"
      "| calibration | {recipe} |\n"
      "| prefill skipped (projections and MLPs) | {skipped:.1f} % |\n"
      "| K/V bytes per token, BF16 | {kv} (base {base_kv}) |\n\n"
      "Measured against the base model on {tokens} held-out tokens:\n\n"
      "| KL(base, SwiftKV) | top-1 agreement | perplexity | base's perplexity |\n| --- | --- | --- | --- |\n"
      "| {kl:.4f} | {agreement:.1f} % | {student_ppl:.2f} | {base_ppl:.2f} |\n\n"
      "The base model's licence applies.{use}\n",
      fmt::arg("kind", report.options.adapter ? "adapter" : "version"), fmt::arg("origin", report.origin),
      fmt::arg("sharing", SharingName(student)), fmt::arg("n", student.num_key_value_layers),
      fmt::arg("layers", student.num_hidden_layers), fmt::arg("before", student.num_key_value_layers - 1),
      fmt::arg("g", student.key_value_group_size), fmt::arg("version", SWIFTKV_VERSION), fmt::arg("init", report.init),
      fmt::arg("recipe", RecipeText(report)), fmt::arg("skipped", 100 * costs.skipped_prefill_share()),
      fmt::arg("kv", 2 * costs.swiftkv_kv_elements), fmt::arg("base_kv", 2 * costs.base_kv_elements),
      fmt::arg("tokens", quality.tokens), fmt::arg("kl", quality.kl), fmt::arg("agreement", 100 * quality.agreement),
      fmt::arg("student_ppl", Perplexity(quality.student_nll)), fmt::arg("base_ppl", Perplexity(quality.teacher_nll)),
      fmt::arg("use", report.options.adapter ? " Use it with `--adapter` on the base model." : ""));
}

}  // namespace swiftkv
