#include "bench/workload.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <utility>

#include "base/printable.h"
#include "bench/lengths.h"
#include "bench/prompts.h"

namespace swiftkv {
namespace {

Status CheckOptions(const WorkloadOptions& options) {
  if (options.num_prompts < 1 || options.num_prompts > kMaxPrompts) {
    return InvalidInput("{} prompts: 1 to {} are possible", options.num_prompts, kMaxPrompts);
  }
  for (const int64_t tokens : {options.prompt_tokens, options.output_tokens}) {
    if (tokens < 1 || tokens > kMaxRequestTokens) {
      return InvalidInput("a prompt or output of {} tokens: 1 to {} are possible", tokens, kMaxRequestTokens);
    }
  }
  if (!(options.range_ratio >= 0 && options.range_ratio < 1)) {
    return InvalidInput("a range ratio of {}: it must be at least 0 and below 1", options.range_ratio);
  }
  if (!(options.speedup > 0) || !(options.arrivals.request_rate > 0) || !(options.arrivals.burstiness > 0)) {
    return InvalidInput("speed-up, request rate and burstiness must be above 0; they are {}, {} and {}",
                        options.speedup, options.arrivals.request_rate, options.arrivals.burstiness);
  }
  if (options.dataset != WorkloadSource::kRandom && options.path.empty()) {
    return InvalidInput("this dataset needs a file: --dataset-path");
  }
  if (options.dataset == WorkloadSource::kCustom && options.max_model_len > 0) {
    return InvalidInput("--max-model-len is for lengths, and this dataset has prompts");
  }
  return Ok();
}

Result<std::vector<RequestLengths>> AllLengths(const WorkloadOptions& options) {
  if (options.dataset == WorkloadSource::kCustom) return ReadPromptsFile(options.path, options.output_tokens);
  if (options.dataset != WorkloadSource::kRandom) {
    return ReadLengthsFile(options.path, options.dataset == WorkloadSource::kTrace);
  }
  return RandomLengths(options.num_prompts, options.prompt_tokens, options.output_tokens, options.range_ratio,
                       options.seed);
}

}  // namespace

Result<WorkloadSource> ParseDataset(const std::string& name) {
  if (name == "random") return WorkloadSource::kRandom;
  if (name == "lengths-file") return WorkloadSource::kLengthsFile;
  if (name == "trace") return WorkloadSource::kTrace;
  if (name == "custom") return WorkloadSource::kCustom;
  return InvalidInput(
      "the dataset {} is not supported; there are random, lengths-file (a CSV of lengths), trace (a CSV of lengths and "
      "times) and custom (JSON lines of prompts)",
      Printable(name));
}

Result<Workload> MakeWorkload(const WorkloadOptions& options) {
  SWIFTKV_RETURN_IF_ERROR(CheckOptions(options));
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<RequestLengths> lengths, AllLengths(options));
  const auto count = static_cast<size_t>(options.num_prompts);
  Workload workload;
  if (options.max_model_len > 0) {
    workload.left_out = static_cast<int64_t>(std::erase_if(lengths, [&](const RequestLengths& request) {
      return request.prompt_tokens + request.output_tokens > options.max_model_len;
    }));
    if (lengths.empty()) return InvalidInput("no request has at most {} tokens", options.max_model_len);
  }
  if (options.dataset == WorkloadSource::kLengthsFile) {
    std::vector<RequestLengths> drawn;
    std::mt19937_64 random(options.seed);
    std::sample(lengths.begin(), lengths.end(), std::back_inserter(drawn), options.num_prompts, random);
    lengths = std::move(drawn);
  }
  if (options.dataset == WorkloadSource::kCustom && lengths.size() < count) {
    const size_t rows = lengths.size();
    workload.repeated = static_cast<int64_t>(count - rows);
    lengths.reserve(count);
    while (lengths.size() < count) lengths.push_back(lengths[lengths.size() - rows]);
  }
  lengths.resize(std::min(lengths.size(), count));

  const bool is_trace = options.dataset == WorkloadSource::kTrace;
  const std::vector<double> arrivals = ArrivalTimes(std::ssize(lengths), options.arrivals);
  for (size_t i = 0; i < lengths.size(); ++i) {
    LoadRequest request;
    request.prompt = std::move(lengths[i].prompt);
    request.prompt_tokens = lengths[i].prompt_tokens;
    request.output_tokens = lengths[i].output_tokens;
    request.arrival = is_trace ? (lengths[i].arrival - lengths.front().arrival) / options.speedup : arrivals[i];
    workload.requests.push_back(std::move(request));
  }
  workload.request_rate =
      is_trace ? static_cast<double>(lengths.size()) / workload.requests.back().arrival : options.arrivals.request_rate;
  return workload;
}

Status FillWithText(const Tokenizer& tokenizer, uint64_t seed, std::vector<LoadRequest>* requests) {
  SWIFTKV_ASSIGN_OR_RETURN(PromptMaker maker, PromptMaker::Create(tokenizer, seed));
  for (LoadRequest& request : *requests) {
    if (request.prompt.empty()) request.prompt = maker.MakeText(request.prompt_tokens);
    request.prompt_tokens = std::ssize(tokenizer.Encode(request.prompt, {.add_special_tokens = true}));
  }
  return Ok();
}

void FillWithTokenIds(int64_t vocab_size, uint64_t seed, std::vector<LoadRequest>* requests) {
  std::mt19937_64 random(seed);
  for (LoadRequest& request : *requests) {
    request.prompt_token_ids = RandomTokenIds(request.prompt_tokens, vocab_size, &random);
  }
}

}  // namespace swiftkv
