#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <utility>
#include <vector>

namespace swiftkv {
namespace {

using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Buckets = Histogram::BucketBoundaries;

// The bounds are vLLM's (v1/metrics/loggers.py), so that dashboards' quantiles stay what they were.
const Buckets kTimeToFirstToken = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                                   1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
const Buckets kTokenTime = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
                            0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
const Buckets kRequestTime = {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
                              30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
const Buckets kStepTokens = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Buckets kRequestTokens = {1,    2,    5,    10,    20,    50,    100,    200,   500,
                                1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
const Buckets kChoices = {1, 2, 5, 10, 20};

double Seconds(RequestTimes::Time from, RequestTimes::Time to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

class ServerMetrics::Impl {
 public:
  explicit Impl(const std::string& model_name) : labels{{"model_name", model_name}} {
    // From the start, as with vLLM: a rate needs the 0 before the first 1.
    for (const char* reason : {"stop", "length", "abort", "error"}) Ended(reason);
  }

  Histogram& AddHistogram(const std::string& name, const std::string& help, const Buckets& buckets) {
    return prometheus::BuildHistogram()
        .Name("swiftkv:" + name)
        .Help(help)
        .Labels(labels)
        .Register(registry)
        .Add({}, buckets);
  }

  prometheus::Counter& Ended(std::string_view reason) {
    return success.Add({{"finished_reason", std::string(reason)}});
  }

  // What the engine counts itself, read when somebody asks.
  MetricFamily Family(MetricType type, const char* name, const char* help, double value) const {
    prometheus::ClientMetric metric;
    for (const auto& [key, label] : labels) metric.label.push_back({key, label});
    if (type == MetricType::Counter) metric.counter.value = value;
    if (type == MetricType::Gauge) metric.gauge.value = value;
    return {std::string("swiftkv:") + name, help, type, {std::move(metric)}};
  }

  prometheus::Labels labels;
  prometheus::Registry registry;
  Histogram& first_token =
      AddHistogram("time_to_first_token_seconds", "From arrival to the first token", kTimeToFirstToken);
  Histogram& next_token = AddHistogram("inter_token_latency_seconds", "Between two tokens of a choice", kTokenTime);
  Histogram& token_time = AddHistogram("request_time_per_output_token_seconds",
                                       "Mean time of a request's tokens after the first", kTokenTime);
  Histogram& e2e = AddHistogram("e2e_request_latency_seconds", "From arrival to the last token", kRequestTime);
  Histogram& queue = AddHistogram("request_queue_time_seconds", "From arrival to the first step", kRequestTime);
  Histogram& prefill =
      AddHistogram("request_prefill_time_seconds", "From the first step to the first token", kRequestTime);
  Histogram& decode = AddHistogram("request_decode_time_seconds", "From the first token to the last", kRequestTime);
  Histogram& inference =
      AddHistogram("request_inference_time_seconds", "From the first step to the last token", kRequestTime);
  Histogram& step_tokens = AddHistogram("iteration_tokens_total", "Tokens computed in a step", kStepTokens);
  Histogram& prompt_tokens = AddHistogram("request_prompt_tokens", "Prompt tokens of a request", kRequestTokens);
  Histogram& generation_tokens =
      AddHistogram("request_generation_tokens", "Tokens generated for a request", kRequestTokens);
  Histogram& choices = AddHistogram("request_params_n", "Choices asked for", kChoices);
  prometheus::Family<prometheus::Counter>& success = prometheus::BuildCounter()
                                                         .Name("swiftkv:request_success_total")
                                                         .Help("Requests that have ended, by reason")
                                                         .Labels(labels)
                                                         .Register(registry);
};

ServerMetrics::ServerMetrics(const std::string& model_name) : impl_(std::make_unique<Impl>(model_name)) {}
ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::ObserveStep(int64_t tokens) { impl_->step_tokens.Observe(static_cast<double>(tokens)); }
void ServerMetrics::ObserveFirstToken(double seconds) { impl_->first_token.Observe(seconds); }
void ServerMetrics::ObserveNextToken(double seconds) { impl_->next_token.Observe(seconds); }

void ServerMetrics::ObserveFinished(const FinishedRequest& request) {
  impl_->Ended(request.finished_reason).Increment();
  impl_->choices.Observe(request.n);
  impl_->prompt_tokens.Observe(static_cast<double>(request.prompt_tokens));
  impl_->generation_tokens.Observe(static_cast<double>(request.generation_tokens));
  const RequestTimes& times = request.times;
  if (times.scheduled == RequestTimes::Time()) return;
  impl_->queue.Observe(Seconds(times.arrival, times.scheduled));
  if (times.first_token == RequestTimes::Time()) return;
  impl_->prefill.Observe(Seconds(times.scheduled, times.first_token));
  impl_->decode.Observe(Seconds(times.first_token, times.last_output));
  impl_->inference.Observe(Seconds(times.scheduled, times.last_output));
  impl_->e2e.Observe(Seconds(times.arrival, times.last_output));
  // Tokens of several choices come side by side: the time is one choice's.
  const double later = static_cast<double>(request.generation_tokens) / request.n - 1;
  if (later > 0) impl_->token_time.Observe(Seconds(times.first_token, times.last_output) / later);
}

std::string ServerMetrics::Text(const EngineStats& stats) const {
  std::vector<MetricFamily> families = impl_->registry.Collect();
  const auto counter = [&](const char* name, const char* help, auto value) {
    families.push_back(impl_->Family(MetricType::Counter, name, help, static_cast<double>(value)));
  };
  const auto gauge = [&](const char* name, const char* help, auto value) {
    families.push_back(impl_->Family(MetricType::Gauge, name, help, static_cast<double>(value)));
  };
  gauge("num_requests_running", "Requests in the batch", stats.num_requests_running);
  gauge("num_requests_waiting", "Requests that wait for their first step", stats.num_requests_waiting);
  gauge("kv_cache_usage_perc", "Share of the K/V cache that requests hold, 0 to 1", stats.kv_cache_usage);
  gauge("kv_cache_tokens", "Tokens that the K/V cache holds at most", stats.kv_cache_tokens);
  gauge("kv_cache_bytes_per_token", "Bytes of K/V cache that a token takes", stats.kv_cache_bytes_per_token);
  counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache", stats.prefix_cache_queries);
  counter("prefix_cache_hits_total", "Prompt tokens found in the prefix cache", stats.prefix_cache_hits);
  counter("num_preemptions_total", "Times that a running request was put back", stats.num_preemptions);
  counter("steps_total", "Steps of the model", stats.steps);
  counter("computed_tokens_total", "Tokens that went through the model", stats.computed_tokens);
  counter("prompt_tokens_total", "Prompt tokens computed or found in the cache", stats.prompt_tokens);
  counter("generation_tokens_total", "Tokens generated", stats.generation_tokens);
  counter("skipped_layers_tokens_total", "Computed tokens that ran the first n layers only",
          stats.skipped_layers_tokens);
  counter("skipped_flops_total", "Floating-point operations that the skipped layers would have added",
          stats.skipped_flops);
  counter("computed_flops_total", "Floating-point operations of projections and MLPs", stats.computed_flops);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace swiftkv
