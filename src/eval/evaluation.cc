#include "eval/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <utility>

#include "engine/memory.h"
#include "eval/hash.h"
#include "eval/response_file.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// A sequence's usual length in these tasks: what the cache is made for, times the sequences that run at once.
constexpr int64_t kUsualTokens = 2048;

EngineOptions MakeEngineOptions(const Variant& variant, const EvaluationOptions& options) {
  EngineOptions engine;
  engine.max_model_len = MaxModelLen(variant, options);
  engine.scheduler.max_num_batched_tokens = options.max_num_batched_tokens;
  engine.scheduler.max_num_seqs = options.scorer.max_num_seqs;
  engine.kv_cache_dtype = options.kv_cache_dtype;
  const KvLayout layout = CacheLayout(*variant.weights, variant.mode, options.kv_cache_dtype);
  int64_t tokens = options.scorer.max_num_seqs * std::min(kUsualTokens, engine.max_model_len);
  if (const int64_t available = AvailableBytes(*layout.memory); available > 0) {
    tokens = std::min(tokens, available / 4 / layout.bytes_per_token());
  }
  engine.kv_cache_tokens = std::max(tokens, engine.max_model_len);
  return engine;
}

// Everything besides the prompts that a response follows from.
Json JobOf(const Task& task, const Variant& variant, const EvaluationOptions& options) {
  Json job = {{"task", task.info().name},
              {"model_sha256", variant.hash},
              {"mode", variant.mode == Mode::kTeacher ? "base" : "swiftkv"},
              {"dtype", Name(variant.weights->dtype)},
              {"quantization", variant.quantization},
              {"kv_cache_dtype", Name(KvCacheDType(variant, options))},
              {"max_model_len", MaxModelLen(variant, options)},
              {"max_gen_toks", options.scorer.max_gen_toks},
              {"add_bos_token", options.scorer.add_bos_token},
              {"version", SWIFTKV_VERSION}};
  // These are missing at their defaults, so that responses from before there were these keys still count.
  if (Device(variant) != "cpu") job["device"] = Device(variant);
  if (task.info().uses_chat_template && !variant.chat_template_hash.empty()) {
    job["chat_template_sha256"] = variant.chat_template_hash;
  }
  // Plain prompts had other stops once.
  if (!task.info().uses_chat_template && !task.info().until.empty()) job["until"] = task.info().until;
  return job;
}

std::string ResponsePath(const Task& task, const Variant& variant, const EvaluationOptions& options) {
  return fmt::format("{}/responses_{}_{}.jsonl", options.output_path, task.info().name, variant.name);
}

// The responses of one variant: those of an earlier run, and the rest from the engine.
class VariantRun {
 public:
  VariantRun(const Task& task, const Variant& variant, const EvaluationOptions& options,
             const std::vector<int64_t>& documents)
      : task_(task), variant_(variant), options_(options), documents_(documents) {
    result_.responses.resize(documents.size());
  }

  Result<VariantResult> Run() {
    if (!options_.output_path.empty()) {
      const std::string path = ResponsePath(task_, variant_, options_);
      SWIFTKV_ASSIGN_OR_RETURN(ResponseFile file,
                               ResponseFile::Open(path, JobOf(task_, variant_, options_), options_.resume));
      if (!file.set_aside().empty() && options_.on_set_aside) options_.on_set_aside(path, file.set_aside());
      file_.emplace(std::move(file));
    }
    const std::vector<int64_t> missing = TakeKnown();
    Report();
    if (!missing.empty()) SWIFTKV_RETURN_IF_ERROR(Ask(missing));
    for (size_t i = 0; i < documents_.size(); ++i) {
      result_.outcomes.push_back(task_.Score(documents_[i], result_.responses[i]));
    }
    return std::move(result_);
  }

 private:
  std::vector<int64_t> TakeKnown() {
    std::vector<int64_t> missing;
    for (size_t i = 0; i < documents_.size(); ++i) {
      const Response* known = file_ && file_->rows() > 0
                                  ? file_->Find(documents_[i], PromptHash(task_.MakePrompt(documents_[i])))
                                  : nullptr;
      if (known == nullptr) {
        missing.push_back(documents_[i]);
      } else {
        result_.responses[i] = *known;
        ++result_.resumed;
      }
    }
    done_ = result_.resumed;
    return missing;
  }

  Status Ask(const std::vector<int64_t>& missing) {
    const auto start = std::chrono::steady_clock::now();
    SWIFTKV_ASSIGN_OR_RETURN(const auto engine, MakeEngine(variant_, options_));
    Scorer scorer(engine.get(), variant_.text, options_.scorer);
    const auto take = [&](int64_t document, Response response) { return Take(document, std::move(response)); };
    SWIFTKV_RETURN_IF_ERROR(scorer.Run(task_, missing, take, options_.cancelled));
    result_.stats = scorer.stats();
    result_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return Ok();
  }

  Status Take(int64_t document, Response response) {
    if (file_) {
      SWIFTKV_RETURN_IF_ERROR(file_->Append(document, PromptHash(task_.MakePrompt(document)), response));
    }
    const auto place = std::lower_bound(documents_.begin(), documents_.end(), document);
    result_.responses[static_cast<size_t>(place - documents_.begin())] = std::move(response);
    ++done_;
    Report();
    return Ok();
  }

  void Report() const {
    if (options_.on_progress) {
      options_.on_progress(task_, variant_, done_, static_cast<int64_t>(documents_.size()));
    }
  }

  const Task& task_;
  const Variant& variant_;
  const EvaluationOptions& options_;
  const std::vector<int64_t>& documents_;
  std::optional<ResponseFile> file_;
  VariantResult result_;
  int64_t done_ = 0;
};

}  // namespace

int64_t VariantResult::truncated() const {
  return std::accumulate(responses.begin(), responses.end(), int64_t{0},
                         [](int64_t sum, const Response& response) { return sum + response.truncated; });
}

int64_t VariantResult::at_length() const {
  return std::count_if(responses.begin(), responses.end(), [](const Response& response) { return response.at_length; });
}

std::vector<double> TaskResult::Scores(size_t variant, size_t metric) const {
  std::vector<double> scores;
  for (const Outcome& outcome : variants[variant].outcomes) scores.push_back(outcome.scores[metric]);
  return scores;
}

std::vector<double> TaskResult::GroupWeights() const {
  std::map<std::string, double> sizes;
  for (const int64_t document : documents) ++sizes[task->Group(document)];
  if (sizes.contains("")) return {};
  const auto groups = static_cast<double>(sizes.size());
  std::vector<double> weights;
  for (const int64_t document : documents) weights.push_back(1 / groups / sizes[task->Group(document)]);
  return weights;
}

std::vector<int64_t> DrawDocuments(int64_t size, int64_t limit, uint64_t seed) {
  std::vector<int64_t> documents(static_cast<size_t>(size));
  std::iota(documents.begin(), documents.end(), 0);
  if (limit <= 0 || limit >= size) return documents;
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < static_cast<size_t>(limit); ++i) {
    std::swap(documents[i], documents[i + random() % (documents.size() - i)]);
  }
  documents.resize(static_cast<size_t>(limit));
  std::sort(documents.begin(), documents.end());
  return documents;
}

Result<TaskResult> EvaluateTask(const Task& task, std::span<const Variant> variants, const EvaluationOptions& options) {
  TaskResult result{
      .task = &task, .documents = DrawDocuments(task.size(), options.limit, options.seed), .variants = {}};
  for (const Variant& variant : variants) {
    SWIFTKV_ASSIGN_OR_RETURN(result.variants.emplace_back(),
                             VariantRun(task, variant, options, result.documents).Run());
  }
  return result;
}

Result<std::unique_ptr<Engine>> MakeEngine(const Variant& variant, const EvaluationOptions& options) {
  return Engine::Create(*variant.weights, variant.mode, variant.text->tokenizer.get(),
                        MakeEngineOptions(variant, options));
}

int64_t MaxModelLen(const Variant& variant, const EvaluationOptions& options) {
  return std::min(options.max_model_len, variant.weights->config.max_position_embeddings);
}

DType KvCacheDType(const Variant& variant, const EvaluationOptions& options) {
  return options.kv_cache_dtype.value_or(variant.weights->dtype);
}

std::string_view Device(const Variant& variant) {
  return variant.weights->backend->memory().is_host() ? "cpu" : "cuda";
}

Json PromptJson(const Prompt& prompt) {
  Json json = Json::array();
  for (const ScoredText& choice : prompt.choices) json.push_back(Json::array({choice.context, choice.continuation}));
  for (const ChatTurn& turn : prompt.turns) json.push_back({{"role", turn.role}, {"content", turn.content}});
  if (!prompt.text.empty()) json.push_back(prompt.text);
  return json;
}

std::string PromptHash(const Prompt& prompt) {
  return Sha256(PromptJson(prompt).dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace swiftkv
