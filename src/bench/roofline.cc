#include "bench/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "base/aligned_buffer.h"
#include "base/bfloat16.h"
#include "base/parallel.h"
#include "bench/device_roofline.h"
#include "engine/memory.h"
#include "kernels/ops.h"
#include "kernels/peak.h"

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

struct Shape {
  int64_t m, k, n;
};
// Prefill tiles against matrices of the models that we serve.
constexpr std::array<Shape, 3> kShapes = {{{512, 576, 3072}, {512, 2048, 4096}, {512, 4096, 4096}}};

std::vector<float> RandomValues(int64_t size) {
  std::minstd_rand engine(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = uniform(engine);
  return values;
}

Result<double> GemmFlops(const Shape& shape, DType dtype, double seconds) {
  const kernels::Backend& ops = kernels::DefaultBackend();
  SWIFTKV_ASSIGN_OR_RETURN(kernels::PackedMatrix w, dtype == DType::kI8 ? ops.AllocateInt8(shape.n, shape.k, {})
                                                                        : ops.AllocatePacked(shape.n, shape.k, dtype));
  const std::vector<float> x = RandomValues(shape.m * shape.k);
  ParallelFor(shape.n / 64, [&](int64_t panel) { ops.PackRows(x.data(), panel * 64, 64, &w); });
  std::vector<BFloat16> x_bf16(x.size());
  std::transform(x.begin(), x.end(), x_bf16.begin(), [](float value) { return ToBFloat16(value); });
  std::vector<float> y(static_cast<size_t>(shape.m * shape.n));
  const void* input = dtype == DType::kF32 ? static_cast<const void*>(x.data()) : x_bf16.data();
  const double best = BestRun(seconds, [&] {
    ops.Gemm({.x = input, .x_stride = shape.k, .m = shape.m, .w = &w, .y = y.data(), .y_stride = shape.n});
  });
  return 2.0 * static_cast<double>(shape.m * shape.k * shape.n) / best;
}

Result<GemmPeak> MeasureGemm(DType dtype, double seconds) {
  GemmPeak peak;
  peak.dtype = dtype;
  for (const Shape& shape : kShapes) {
    SWIFTKV_ASSIGN_OR_RETURN(const double flops, GemmFlops(shape, dtype, seconds / std::size(kShapes)));
    if (flops <= peak.flops) continue;
    peak.flops = flops;
    peak.shape = fmt::format("{} x {} x {}", shape.m, shape.k, shape.n);
  }
  for (const kernels::PeakLoop& loop : kernels::AvailablePeakLoops()) {
    if (loop.dtype != dtype) continue;
    const double best = BestRun(seconds, [&] { ParallelFor(Threads(), [&](int64_t) { loop.run(); }); });
    const double flops = loop.flops * Threads() / best;
    if (flops > peak.loop_flops) peak.loop = loop.name;
    peak.loop_flops = std::max(peak.loop_flops, flops);
  }
  return peak;
}

// Reads [begin, begin + count) with sums that the compiler turns into wide loads.
uint64_t ReadAll(const uint64_t* begin, int64_t count) {
  std::array<uint64_t, 16> sums = {};
  for (int64_t i = 0; i + 16 <= count; i += 16) {
    for (size_t lane = 0; lane < 16; ++lane) sums[lane] += begin[i + static_cast<int64_t>(lane)];
  }
  uint64_t sum = 0;
  for (const uint64_t lane : sums) sum += lane;
  return sum;
}

Result<double> MeasureReadBandwidth(int64_t bytes, double seconds) {
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::Allocate(bytes, "bandwidth buffer"));
  const int64_t pieces = int64_t{Threads()} * 16;
  const int64_t piece = bytes / pieces / 8;  // in 8-byte words
  auto* words = buffer.as<uint64_t>();
  // Written once, for untouched pages would all be one page of zeros.
  ParallelFor(pieces, [&](int64_t i) { std::fill_n(words + i * piece, piece, static_cast<uint64_t>(i)); });
  buffer.UseHugePages();
  std::atomic<uint64_t> sum = 0;
  const double best =
      BestRun(seconds, [&] { ParallelFor(pieces, [&](int64_t i) { sum += ReadAll(words + i * piece, piece); }); });
  return static_cast<double>(pieces * piece * 8) / best;
}

// Weights of one layer in elements, by who needs them.
struct LayerElements {
  double q, kv, rest;  // rest: o_proj and the MLP
};

LayerElements ElementsOfLayer(const ModelConfig& config) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto q = hidden * static_cast<double>(config.q_size());
  return {.q = q,
          .kv = 2 * hidden * static_cast<double>(config.kv_size()),
          .rest = q + 3 * hidden * static_cast<double>(config.intermediate_size)};
}

}  // namespace

double BestRun(double seconds, const std::function<void()>& run) {
  run();
  double best = 0, total = 0;
  do {
    const Clock::time_point start = Clock::now();
    run();
    const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    best = best == 0 ? elapsed : std::min(best, elapsed);
    total += elapsed;
  } while (total < seconds);
  return best;
}

Result<Roofline> MeasureRoofline(const RooflineOptions& options) {
  if (options.backend != nullptr && !options.backend->memory().is_host()) {
    return MeasureDeviceRoofline(*options.backend, options.dtypes, options.seconds);
  }
  Roofline roofline;
  for (const DType dtype : options.dtypes) {
    SWIFTKV_ASSIGN_OR_RETURN(GemmPeak peak, MeasureGemm(dtype, options.seconds));
    roofline.gemm.push_back(std::move(peak));
  }
  const int64_t available = ReadMemoryInfo().available_bytes;
  const int64_t most = available > 0 ? available / 4 : kBeyondCaches;
  roofline.read_bytes = std::min(options.read_bytes > 0 ? options.read_bytes : kBeyondCaches, most);
  SWIFTKV_ASSIGN_OR_RETURN(roofline.read_bandwidth, MeasureReadBandwidth(roofline.read_bytes, options.seconds));
  return roofline;
}

Work StepWork(const Step& step, const Weights& weights, Mode mode, std::optional<DType> kv_cache_dtype) {
  const ModelConfig config = mode == Mode::kTeacher ? weights.config.Teacher() : weights.config;
  const auto layers = static_cast<double>(config.num_hidden_layers);
  const auto n = static_cast<double>(config.num_key_value_layers);
  const auto later_groups = static_cast<double>(config.kv_groups()) - n;
  const auto rows = static_cast<double>(step.token_ids.size());
  const auto logit_rows = static_cast<double>(step.logit_rows.size());
  const LayerElements layer = ElementsOfLayer(config);
  // (row, cache token) pairs of all rows, of the logit rows, and cache tokens read.
  double pairs = 0, logit_pairs = 0, context = 0;
  for (const SequenceChunk& chunk : step.chunks) {
    const auto tokens = static_cast<double>(chunk.tokens);
    const double before = chunk.position;
    pairs += tokens * before + tokens * (tokens + 1) / 2;
    context += before + tokens;
    for (const int32_t row : step.logit_rows) {
      const int64_t offset = row - chunk.token_begin;
      if (offset >= 0 && offset < chunk.tokens) logit_pairs += before + static_cast<double>(offset) + 1;
    }
  }
  // Layers that all rows run whole: below n in the student; in a plain model all but the last, which drops rows that
  // nobody reads after its K/V.
  const double whole = config.is_swiftkv() ? n : layers - 1;
  const double later_kv = config.is_swiftkv() ? later_groups : 1;
  const double partial = layers - whole;
  const auto head = static_cast<double>(config.hidden_size) * static_cast<double>(config.vocab_size);

  const double macs_per_row = whole * (layer.q + layer.kv + layer.rest) + later_kv * layer.kv;
  const double macs_per_logit_row = partial * (layer.q + layer.rest) + head;
  const double attention_macs = 2 * static_cast<double>(config.q_size()) * (whole * pairs + partial * logit_pairs);
  double weights_read = macs_per_row;
  double cache_read = whole * context;  // tokens of one layer's K/V
  if (logit_rows > 0) {
    weights_read += macs_per_logit_row;
    cache_read += partial * context;
  }
  const double cache_bytes =
      static_cast<double>(CacheLayout(weights, mode, kv_cache_dtype).block_bytes) / static_cast<double>(kKvBlockTokens);
  return {.flops = 2 * (rows * macs_per_row + logit_rows * macs_per_logit_row + attention_macs),
          .bytes = weights_read * BytesPerWeight(weights) + cache_read * cache_bytes};
}

double BestSeconds(const Work& work, DType dtype, const Roofline& roofline) {
  double flops = 0;
  for (const GemmPeak& peak : roofline.gemm) {
    if (peak.dtype == dtype) flops = peak.flops;
  }
  if (flops <= 0 || roofline.read_bandwidth <= 0) return 0;
  return std::max(work.flops / flops, work.bytes / roofline.read_bandwidth);
}

std::string RooflineText(const MachineInfo& machine, const Roofline& roofline) {
  std::string text = MachineText(machine) + "\n\n| limit | measured | how |\n| --- | ---: | --- |\n";
  for (const GemmPeak& peak : roofline.gemm) {
    text += fmt::format("| {} product | {:.1f} GFLOP/s | {} |\n", Name(peak.dtype), peak.flops / 1e9, peak.shape);
    if (peak.loop.empty()) continue;
    text += fmt::format("| {} loop in registers | {:.1f} GFLOP/s | {}; the product reaches {:.0f} % |\n",
                        Name(peak.dtype), peak.loop_flops / 1e9, peak.loop, 100 * peak.flops / peak.loop_flops);
  }
  const bool on_gpu = !machine.gpu.empty();
  return text + fmt::format("| {} memory | {:.1f} GB/s | {} MiB, {} |\n", on_gpu ? "copying" : "reading",
                            roofline.read_bandwidth / 1e9, roofline.read_bytes >> 20,
                            on_gpu ? "read and written" : "all threads");
}

nlohmann::ordered_json RooflineJson(const Roofline& roofline) {
  nlohmann::ordered_json json;
  json["gemm"] = nlohmann::ordered_json::array();
  for (const GemmPeak& peak : roofline.gemm) {
    json["gemm"].push_back({{"dtype", Name(peak.dtype)},
                            {"flops_per_s", peak.flops},
                            {"shape", peak.shape},
                            {"loop", peak.loop},
                            {"loop_flops_per_s", peak.loop_flops}});
  }
  json["read_bytes_per_s"] = roofline.read_bandwidth;
  json["read_bytes"] = roofline.read_bytes;
  return json;
}

}  // namespace swiftkv
