#include "eval/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/parallel.h"
#include "checkpoint/json_file.h"
#include "eval/hash.h"
#include "eval/statistics.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// Scores of some of a task's documents by what they have in common.
std::map<std::string, std::vector<double>> ScoresBy(const TaskResult& result, size_t variant, size_t metric,
                                                    std::string (Task::*key)(int64_t) const) {
  std::map<std::string, std::vector<double>> scores;
  for (size_t i = 0; i < result.documents.size(); ++i) {
    const std::string name = (result.task->*key)(result.documents[i]);
    if (!name.empty()) scores[name].push_back(result.variants[variant].outcomes[i].scores[metric]);
  }
  return scores;
}

// As lm-eval names it in results.
std::string Key(const Metric& metric) { return fmt::format("{},{}", metric.name, metric.filter); }

void AddEstimate(const Metric& metric, const Estimate& estimate, Json* json) {
  (*json)[Key(metric)] = estimate.mean;
  (*json)[fmt::format("{}_stderr,{}", metric.name, metric.filter)] = estimate.standard_error;
  (*json)["sample_len"] = estimate.count;
}

// A task's entry of "results", and one for each of its groups and categories, weighted by size.
void AddTask(const TaskResult& result, size_t variant, Json* results, Json* groups) {
  const TaskInfo& info = result.task->info();
  const std::vector<double> weights = result.GroupWeights();
  Json task = {{"alias", info.name}};
  Json subjects = Json::object();  // an insertion moves what ordered_json holds, so that these come behind the task
  for (size_t m = 0; m < info.metrics.size(); ++m) {
    const Metric& metric = info.metrics[m];
    AddEstimate(metric, MeanOf(result.Scores(variant, m)), &task);
    if (!weights.empty()) AddEstimate(Macro(metric), WeightedMeanOf(result.Scores(variant, m), weights), &task);
    for (const auto& [group, scores] : ScoresBy(result, variant, m, &Task::Group)) {
      const std::string name = fmt::format("{}_{}", info.name, group);
      subjects[name]["alias"] = fmt::format("  - {}", group);
      AddEstimate(metric, MeanOf(scores), &subjects[name]);
    }
    for (const auto& [category, scores] : ScoresBy(result, variant, m, &Task::Category)) {
      const std::string name = fmt::format("{}_{}", info.name, category);
      (*groups)[name]["alias"] = fmt::format(" - {}", category);
      AddEstimate(metric, MeanOf(scores), &(*groups)[name]);
    }
  }
  (*results)[info.name] = std::move(task);
  results->update(subjects);
}

Json GenerationJson(const TaskInfo& info, const EvaluationOptions& options) {
  return {
      {"until", info.until}, {"do_sample", false}, {"temperature", 0.0}, {"max_gen_toks", options.scorer.max_gen_toks}};
}

Json ConfigJson(const TaskInfo& info, const EvaluationOptions& options) {
  Json config = {{"task", info.name},
                 {"output_type", info.until.empty() ? "multiple_choice" : "generate_until"},
                 {"num_fewshot", info.num_fewshot},
                 {"metric_list", Json::array()}};
  for (const Metric& metric : info.metrics) {
    config["metric_list"].push_back(
        {{"metric", metric.name}, {"aggregation", "mean"}, {"filter", metric.filter}, {"higher_is_better", true}});
  }
  if (!info.until.empty()) config["generation_kwargs"] = GenerationJson(info, options);
  return config;
}

void AddPerplexities(const RunResults& run, size_t variant, Json* results) {
  for (const TextPerplexity& text : run.perplexities) {
    if (text.variant != run.variants[variant].name) continue;
    (*results)["perplexity " + text.text] = {{"alias", "perplexity " + text.text},
                                             {"token_perplexity,none", text.token_perplexity()},
                                             {"word_perplexity,none", text.word_perplexity()},
                                             {"byte_perplexity,none", text.byte_perplexity()},
                                             {"bits_per_byte,none", text.bits_per_byte()},
                                             {"tokens", text.tokens}};
  }
}

Json EstimateJson(const Estimate& estimate) {
  return {{"mean", estimate.mean}, {"stderr", estimate.standard_error}, {"n", estimate.count}};
}

Json PairJson(const Estimate& base, const Estimate& swiftkv, const Estimate& difference) {
  return {{"base", EstimateJson(base)}, {"swiftkv", EstimateJson(swiftkv)}, {"difference", EstimateJson(difference)}};
}

// By metric; base is variant 0.
Json TaskComparison(const TaskResult& result, size_t variant) {
  Json json = Json::object();
  const std::vector<Metric>& metrics = result.task->info().metrics;
  const std::vector<double> weights = result.GroupWeights();
  for (size_t m = 0; m < metrics.size(); ++m) {
    const std::vector<double> base = result.Scores(0, m);
    const std::vector<double> swiftkv = result.Scores(variant, m);
    Json entry = PairJson(MeanOf(base), MeanOf(swiftkv), MeanDifference(base, swiftkv));
    if (metrics[m].is_binary) {
      const McNemar test = TestMcNemar(base, swiftkv);
      entry["mcnemar"] = {{"only_base", test.only_first}, {"only_swiftkv", test.only_second}, {"p", test.p}};
    }
    json[Key(metrics[m])] = std::move(entry);
    if (weights.empty()) continue;
    json[Key(Macro(metrics[m]))] = PairJson(WeightedMeanOf(base, weights), WeightedMeanOf(swiftkv, weights),
                                            WeightedMeanOf(Differences(base, swiftkv), weights));
  }
  return json;
}

Json FidelityJson(const Fidelity& fidelity) {
  return {{"positions", Json::array({fidelity.begin, fidelity.end})},
          {"tokens", fidelity.tokens},
          {"mean_kl", fidelity.mean_kl},
          {"mean_kl_stderr", fidelity.kl_standard_error},
          {"p99_kl", fidelity.p99_kl},
          {"top1_agreement", fidelity.top1_agreement},
          {"top5_agreement", fidelity.top5_agreement},
          {"base_cross_entropy", fidelity.base_nll},
          {"cross_entropy", fidelity.nll}};
}

// The requests of a document: {"gen_args_0": {"arg_0": context, "arg_1": continuation}, ...}, or one of a prompt and
// how it is answered. Turns are the text of their JSON, as lm-eval gives them to a chat API.
Json ArgumentsJson(const Prompt& prompt, const Json& generation) {
  Json arguments = Json::object();
  for (const ScoredText& choice : prompt.choices) {
    arguments[fmt::format("gen_args_{}", arguments.size())] = {{"arg_0", choice.context},
                                                               {"arg_1", choice.continuation}};
  }
  if (!prompt.choices.empty()) return arguments;
  const std::string text =
      prompt.turns.empty() ? prompt.text : PromptJson(prompt).dump(-1, ' ', false, Json::error_handler_t::replace);
  arguments["gen_args_0"] = {{"arg_0", text}, {"arg_1", generation}};
  return arguments;
}

// What a filter leaves of each request's response; numbers and booleans are texts, as Python writes them.
Json FilteredJson(const Response& response, const std::string& text) {
  if (response.choices.empty()) return Json::array({text});
  Json json = Json::array();
  for (const ScoredChoice& choice : response.choices) {
    json.push_back({Json(choice.loglikelihood).dump(), choice.is_greedy ? "True" : "False"});
  }
  return json;
}

// A document's samples, one for each filter.
std::vector<Json> SamplesOf(const TaskResult& result, size_t variant, size_t i, const Json& generation) {
  const Task& task = *result.task;
  const Response& response = result.variants[variant].responses[i];
  const Outcome& outcome = result.variants[variant].outcomes[i];
  const Result<Json> parsed = ParseJsonObject(task.Row(result.documents[i]), "");
  const Json document = parsed ? *parsed : Json::object();
  const Json arguments = ArgumentsJson(task.MakePrompt(result.documents[i]), generation);
  const std::string target = task.Target(result.documents[i]);
  Json responses = Json::array();  // [requests, 1]
  for (const Json& of_request : FilteredJson(response, response.text)) responses.push_back(Json::array({of_request}));
  std::vector<Json> samples;
  for (size_t m = 0; m < task.info().metrics.size(); ++m) {
    const Metric& metric = task.info().metrics[m];
    auto sample = std::find_if(samples.begin(), samples.end(),
                               [&](const Json& other) { return other["filter"] == metric.filter; });
    if (sample == samples.end()) {
      samples.push_back(
          {{"doc_id", result.documents[i]},
           {"doc", document},
           {"target", target},
           {"arguments", arguments},
           {"resps", responses},
           {"filtered_resps", FilteredJson(response, outcome.filtered.empty() ? "" : outcome.filtered[m])},
           {"filter", metric.filter},
           {"metrics", Json::array()},
           {"doc_hash", Sha256(document.dump(2, ' ', false, Json::error_handler_t::replace))},
           {"prompt_hash", Sha256(arguments["gen_args_0"]["arg_0"].get<std::string>())},
           {"target_hash", Sha256(target)}});
      sample = std::prev(samples.end());
    }
    (*sample)["metrics"].push_back(metric.name);
    (*sample)[metric.name] = outcome.scores[m];
  }
  return samples;
}

}  // namespace

VariantInfo Describe(const Variant& variant, const std::string& adapter, const EvaluationOptions& options) {
  const ModelConfig& config = variant.weights->config;
  const bool is_base = variant.mode == Mode::kTeacher;
  return {.name = variant.name,
          .mode = variant.mode,
          .adapter = is_base ? "" : adapter,
          .hash = variant.hash,
          .num_hidden_layers = config.num_hidden_layers,
          .num_key_value_layers = is_base ? config.num_hidden_layers : config.num_key_value_layers,
          .key_value_group_size = is_base ? 1 : config.key_value_group_size,
          .dtype = variant.weights->dtype,
          .kv_cache_dtype = KvCacheDType(variant, options),
          .quantization = variant.quantization,
          .device = std::string(Device(variant)),
          .isa = std::string(variant.weights->backend->name()),
          .chat_template_hash = variant.chat_template_hash,
          .max_model_len = MaxModelLen(variant, options)};
}

std::vector<size_t> RunResults::compared() const {
  std::vector<size_t> compared;
  if (variants.empty() || variants.front().mode != Mode::kTeacher) return compared;
  for (size_t v = 1; v < variants.size(); ++v) compared.push_back(v);
  return compared;
}

Metric Macro(const Metric& metric) { return {metric.name + "_macro", metric.filter, metric.is_binary}; }

Json SettingsJson(const RunResults& run) {
  const VariantInfo& first = run.variants.front();
  Json json = {{"model", run.model},
               {"protocol", Name(run.task_options.protocol)},
               {"truthfulqa_labels", Name(run.task_options.truthfulqa_labels)},
               {"num_hidden_layers", first.num_hidden_layers},
               {"adapter", Json::object()},
               {"num_key_value_layers", Json::object()},
               {"key_value_group_size", Json::object()},
               {"model_sha256", Json::object()},
               {"dtype", Name(first.dtype)},
               {"quantization", first.quantization},
               {"kv_cache_dtype", Name(first.kv_cache_dtype)},
               {"chat_template_sha256", first.chat_template_hash.empty() ? Json() : Json(first.chat_template_hash)},
               {"device", first.device},
               {"isa", first.isa},
               {"threads", Threads()},
               {"data", run.data_folder},
               {"limit", run.options.limit},
               {"seed", run.options.seed},
               {"add_bos_token", run.options.scorer.add_bos_token},
               {"max_model_len", first.max_model_len},
               {"max_gen_toks", run.options.scorer.max_gen_toks},
               {"truncation", "left"},
               {"tasks", Json::object()},
               {"version", SWIFTKV_VERSION}};
  for (const VariantInfo& variant : run.variants) {
    if (!variant.adapter.empty()) json["adapter"][variant.name] = variant.adapter;
    json["num_key_value_layers"][variant.name] = variant.num_key_value_layers;
    json["key_value_group_size"][variant.name] = variant.key_value_group_size;
    json["model_sha256"][variant.name] = variant.hash;
  }
  for (const TaskResult& result : run.tasks) {
    Json& task = json["tasks"][result.task->info().name];
    task = {{"num_fewshot", result.task->info().num_fewshot},
            {"chat_template", result.task->info().uses_chat_template},
            {"documents", result.documents.size()}};
    for (size_t v = 0; v < run.variants.size(); ++v) {
      const VariantResult& of_variant = result.variants[v];
      task[run.variants[v].name] = {{"seconds", of_variant.seconds},
                                    {"resumed_documents", of_variant.resumed},
                                    {"prompt_tokens", of_variant.stats.prompt_tokens},
                                    {"cached_prompt_tokens", of_variant.stats.cached_tokens},
                                    {"scored_tokens", of_variant.stats.scored_tokens},
                                    {"generated_tokens", of_variant.stats.generated_tokens},
                                    {"truncated_prompts", of_variant.truncated()},
                                    {"answers_cut_at_length", of_variant.at_length()}};
    }
  }
  return json;
}

Json ResultsJson(const RunResults& run, size_t variant) {
  Json json = {{"results", Json::object()},          {"groups", Json::object()},   {"group_subtasks", Json::object()},
               {"configs", Json::object()},          {"versions", Json::object()}, {"n-shot", Json::object()},
               {"higher_is_better", Json::object()}, {"n-samples", Json::object()}};
  for (const TaskResult& result : run.tasks) {
    const TaskInfo& info = result.task->info();
    AddTask(result, variant, &json["results"], &json["groups"]);
    json["group_subtasks"][info.name] = Json::array();
    json["configs"][info.name] = ConfigJson(info, run.options);
    json["versions"][info.name] = SWIFTKV_VERSION;
    json["n-shot"][info.name] = info.num_fewshot;
    for (const Metric& metric : info.metrics) json["higher_is_better"][info.name][metric.name] = true;
    json["n-samples"][info.name] = {{"original", result.task->size()}, {"effective", result.documents.size()}};
  }
  AddPerplexities(run, variant, &json["results"]);
  const VariantInfo& of_variant = run.variants[variant];
  const EvaluationOptions& options = run.options;
  json["config"] = {
      {"model", "swiftkv"},
      {"model_args",
       fmt::format("pretrained={},adapter={},mode={},dtype={},quantization={},add_bos_token={}", run.model,
                   of_variant.adapter, of_variant.mode == Mode::kTeacher ? "base" : "swiftkv", Name(of_variant.dtype),
                   of_variant.quantization, options.scorer.add_bos_token ? "True" : "False")},
      {"batch_size", options.scorer.max_num_seqs},
      {"limit", options.limit > 0 ? Json(options.limit) : Json()},
      {"bootstrap_iters", 0},
      {"gen_kwargs", {{"max_gen_toks", options.scorer.max_gen_toks}}},
      {"random_seed", options.seed}};
  json["date"] = run.start_time;
  json["max_length"] = of_variant.max_model_len;
  json["model_source"] = "swiftkv";
  json["model_name"] = run.model;
  json["model_sha"] = of_variant.hash;
  json["total_evaluation_time_seconds"] = fmt::format("{:.3f}", run.seconds);
  json["swiftkv"] = SettingsJson(run);
  return json;
}

Json ComparisonJson(const RunResults& run) {
  Json json = Json::object();
  for (const size_t variant : run.compared()) {
    Json& of_variant = json[run.variants[variant].name];
    for (const TaskResult& result : run.tasks) of_variant[result.task->info().name] = TaskComparison(result, variant);
  }
  for (const TextFidelity& text : run.fidelities) {
    Json& entry = json[text.variant]["fidelity " + text.text];
    entry["all"] = FidelityJson(text.all);
    for (const Fidelity& bucket : text.by_position) entry["by_position"].push_back(FidelityJson(bucket));
  }
  return json;
}

std::string SampleLines(const TaskResult& result, size_t variant, const EvaluationOptions& options) {
  std::string lines;
  const Json generation = GenerationJson(result.task->info(), options);
  for (size_t i = 0; i < result.documents.size(); ++i) {
    for (const Json& sample : SamplesOf(result, variant, i, generation)) {
      lines += sample.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    }
  }
  return lines;
}

}  // namespace swiftkv
