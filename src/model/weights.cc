#include "model/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/parallel.h"
#include "model/int8_weights.h"

namespace swiftkv {
namespace {

using kernels::PackedMatrix;

// Rows [begin, begin + count) of one tensor; called from several threads.
struct RowReader {
  std::string place;  // what messages call the tensor
  std::function<Status(int64_t begin, int64_t count, float* out)> floats;
  // Where the file has blocks of that type (BlockRowsType):
  std::optional<DType> block_type = {};
  std::function<Status(int64_t begin, int64_t count, BlockRows* out)> blocks = nullptr;
};
// Where weights come from: finds the tensor `name` of that shape ([size] or [rows, columns]).
using OpenTensor = std::function<Result<RowReader>(const std::string& name, const std::vector<int64_t>& shape)>;

// A tensor as a run of rows of a packed matrix, or a run of values of a vector.
struct Part {
  std::string name;
  int64_t rows;
};

constexpr std::string_view kSwiftKvSuffix = "_swiftkv";
constexpr int64_t kPackRows = 64;                       // PackRows may run in parallel from multiples of 64
constexpr int64_t kTaskElements = int64_t{256} * 1024;  // float32 work memory of a packing task, about 1 MiB

class WeightsBuilder {
 public:
  WeightsBuilder(const ModelConfig& config, const LoadOptions& options, OpenTensor open)
      : config_(config), options_(options), open_(std::move(open)) {}

  Result<Weights> Build();

 private:
  Status BuildLayer(int64_t layer, LayerWeights* w);
  Status BuildAttention(int64_t layer, LayerWeights* w);
  Status BuildLater();

  // All parts below one another as one packed matrix of `columns` input features.
  Status Matrix(const std::vector<Part>& parts, int64_t columns, PackedMatrix* out);
  DType PackedType(const std::vector<Part>& parts, const std::vector<RowReader>& readers, int64_t columns) const;
  bool StandInForBlocks(const std::vector<Part>& parts, int64_t columns) const;
  Status PackTask(const std::vector<Part>& parts, const std::vector<RowReader>& readers, int64_t begin, int64_t count,
                  PackedMatrix* out);
  Status PackBlocksTask(const std::vector<Part>& parts, const std::vector<RowReader>& readers, int64_t begin,
                        int64_t count, PackedMatrix* out);
  // All parts after one another.
  Status Vector(const std::vector<Part>& parts, std::vector<float>* out);
  // A projection's weight and, where the family has one, its bias; `projections` without ".weight".
  Status Projection(const std::vector<Part>& projections, int64_t columns, bool has_bias, PackedMatrix* weight,
                    std::vector<float>* bias);
  Status CheckFinite(const std::string& place, const float* values, int64_t count) const;

  const ModelConfig& config_;
  const LoadOptions& options_;
  const OpenTensor open_;
  Weights weights_;
};

std::vector<Part> WithSuffix(const std::vector<Part>& parts, const char* suffix) {
  std::vector<Part> named;
  named.reserve(parts.size());
  for (const Part& part : parts) named.push_back({part.name + suffix, part.rows});
  return named;
}

// Whether scales stay finite when they are packed, and weights when they become bf16.
bool ScalesFit(const BlockRows& blocks, DType type) {
  const bool is_float16 = type == DType::kQ4_1 || type == DType::kQ8_0;
  const float limit = is_float16 ? 65504.0f : 0x1p119f;  // 2^128 over 256 codes, with room for a minimum
  const auto fits = [=](float value) { return std::fabs(value) <= limit; };
  return std::all_of(blocks.scales.begin(), blocks.scales.end(), fits) &&
         std::all_of(blocks.minima.begin(), blocks.minima.end(), fits);
}

void PackBlocks(const kernels::Backend& backend, const BlockRows& blocks, int64_t begin, int64_t count,
                PackedMatrix* out) {
  const float* minima = blocks.minima.empty() ? nullptr : blocks.minima.data();
  backend.PackQuantizedRows({.codes = blocks.codes.data(), .scales = blocks.scales.data(), .minima = minima}, begin,
                            count, out);
}

Status WeightsBuilder::CheckFinite(const std::string& place, const float* values, int64_t count) const {
  // The largest bfloat16; a float32 above it would round to infinity.
  constexpr float kMaxBFloat16 = 3.38953139e38f;
  const float limit = options_.dtype == DType::kBF16 ? kMaxBFloat16 : std::numeric_limits<float>::max();
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) finite &= std::fabs(values[i]) <= limit;  // false for NaN
  if (finite) return Ok();
  return InvalidInput("{}: NaN, infinite or above {} in magnitude, which {} can't hold", place, limit,
                      Name(options_.dtype));
}

Status WeightsBuilder::Vector(const std::vector<Part>& parts, std::vector<float>* out) {
  for (const Part& part : parts) {
    SWIFTKV_ASSIGN_OR_RETURN(const RowReader read, open_(part.name, {part.rows}));
    const size_t begin = out->size();
    out->resize(begin + static_cast<size_t>(part.rows));
    SWIFTKV_RETURN_IF_ERROR(read.floats(0, 1, out->data() + begin));
    SWIFTKV_RETURN_IF_ERROR(CheckFinite(read.place, out->data() + begin, part.rows));
  }
  return Ok();
}

// Rows [begin, begin + count) of the stacked matrix, which may span several parts.
Status WeightsBuilder::PackTask(const std::vector<Part>& parts, const std::vector<RowReader>& readers, int64_t begin,
                                int64_t count, PackedMatrix* out) {
  const std::unique_ptr<float[]> rows(new (std::nothrow) float[static_cast<size_t>(count * out->k)]);
  if (rows == nullptr) return ResourceExhausted("{}: no memory to pack {} rows", parts.front().name, count);
  int64_t part_begin = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t from = std::max(begin, part_begin);
    const int64_t to = std::min(begin + count, part_begin + parts[i].rows);
    if (from < to) {
      float* values = rows.get() + (from - begin) * out->k;
      SWIFTKV_RETURN_IF_ERROR(readers[i].floats(from - part_begin, to - from, values));
      SWIFTKV_RETURN_IF_ERROR(CheckFinite(readers[i].place, values, (to - from) * out->k));
    }
    part_begin += parts[i].rows;
  }
  if (!kernels::IsQuantized(out->dtype)) {
    weights_.backend->PackRows(rows.get(), begin, count, out);
    return Ok();
  }
  BlockRows blocks;
  QuantizeRows(rows.get(), count, out->k, out->dtype, &blocks);
  PackBlocks(*weights_.backend, blocks, begin, count, out);
  return Ok();
}

// The same with the file's own bits.
Status WeightsBuilder::PackBlocksTask(const std::vector<Part>& parts, const std::vector<RowReader>& readers,
                                      int64_t begin, int64_t count, PackedMatrix* out) {
  BlockRows blocks;
  int64_t part_begin = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t from = std::max(begin, part_begin);
    const int64_t to = std::min(begin + count, part_begin + parts[i].rows);
    if (from < to) {
      SWIFTKV_RETURN_IF_ERROR(readers[i].blocks(from - part_begin, to - from, &blocks));
      if (!ScalesFit(blocks, out->dtype)) return InvalidInput("{}: scales are too large", readers[i].place);
      PackBlocks(*weights_.backend, blocks, from, to - from, out);
    }
    part_begin += parts[i].rows;
  }
  return Ok();
}

// Whether all of these are SwiftKV's, in place of matrices that the file has in blocks.
bool WeightsBuilder::StandInForBlocks(const std::vector<Part>& parts, int64_t columns) const {
  return std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
    const size_t suffix = part.name.find(kSwiftKvSuffix);
    if (suffix == std::string::npos) return false;
    const Result<RowReader> own =
        open_(std::string(part.name).erase(suffix, kSwiftKvSuffix.size()), {part.rows, columns});
    return own && own->block_type;
  });
}

// Whether blocks of that type can have the file's codes; Q4_1's scales are those of Q4_K rounded to float16.
bool KeepsBits(const RowReader& reader, DType type) {
  return reader.block_type == type || (reader.block_type == DType::kQ4_K && type == DType::kQ4_1);
}

// The type that a matrix is packed in.
DType WeightsBuilder::PackedType(const std::vector<Part>& parts, const std::vector<RowReader>& readers,
                                 int64_t columns) const {
  if (options_.quantization == Quantization::kNone || columns % kernels::kQuantizedBlock != 0) return options_.dtype;
  if (options_.quantization == Quantization::kQ8_0) return DType::kQ8_0;
  const bool is_vocabulary = parts.front().rows == config_.vocab_size;
  if (options_.quantization == Quantization::kFp8) return is_vocabulary ? options_.dtype : DType::kF8E4M3;
  if (options_.quantization == Quantization::kQ4_1) return is_vocabulary ? DType::kQ8_0 : DType::kQ4_1;
  const std::optional<DType> first = readers.front().block_type;
  const bool same =
      std::all_of(readers.begin(), readers.end(), [&](const RowReader& reader) { return reader.block_type == first; });
  const DType stored = first && same ? *first : options_.dtype;     // with the file's own bits
  if (options_.quantization == Quantization::kInt8) return stored;  // and packed anew from it
  if (options_.quantization == Quantization::kStored) {
    return stored == options_.dtype && StandInForBlocks(parts, columns) ? DType::kQ8_0 : stored;
  }
  const bool keeps_8_bits = is_vocabulary || parts.front().name.find(kSwiftKvSuffix) != std::string::npos;
  return stored == DType::kQ4_1 || stored == DType::kQ4_K || !keeps_8_bits ? DType::kQ4_1 : DType::kQ8_0;
}

Status WeightsBuilder::Matrix(const std::vector<Part>& parts, int64_t columns, PackedMatrix* out) {
  std::vector<RowReader> readers;
  int64_t rows = 0;
  for (const Part& part : parts) {
    SWIFTKV_ASSIGN_OR_RETURN(RowReader read, open_(part.name, {part.rows, columns}));
    readers.push_back(std::move(read));
    rows += part.rows;
  }
  const DType type = PackedType(parts, readers, columns);
  const bool keeps_bits =
      std::all_of(readers.begin(), readers.end(), [&](const RowReader& reader) { return KeepsBits(reader, type); });
  SWIFTKV_ASSIGN_OR_RETURN(*out, weights_.backend->AllocatePacked(rows, columns, type));
  out->int8_inputs = options_.quantization == Quantization::kInt4 && type != options_.dtype;

  const int64_t task_rows = std::max<int64_t>(1, kTaskElements / columns / kPackRows) * kPackRows;
  std::mutex mutex;
  Status status;
  ParallelFor((rows + task_rows - 1) / task_rows, [&](int64_t task) {
    const int64_t begin = task * task_rows;
    const int64_t count = std::min(task_rows, rows - begin);
    Status packed =
        keeps_bits ? PackBlocksTask(parts, readers, begin, count, out) : PackTask(parts, readers, begin, count, out);
    if (packed) return;
    const std::lock_guard lock(mutex);
    if (status) status = std::move(packed);
  });
  out->data.UseHugePages();
  return status;
}

Status WeightsBuilder::Projection(const std::vector<Part>& projections, int64_t columns, bool has_bias,
                                  PackedMatrix* weight, std::vector<float>* bias) {
  SWIFTKV_RETURN_IF_ERROR(Matrix(WithSuffix(projections, ".weight"), columns, weight));
  return has_bias ? Vector(WithSuffix(projections, ".bias"), bias) : Ok();
}

Status WeightsBuilder::BuildAttention(int64_t layer, LayerWeights* w) {
  const ModelConfig& c = config_;
  const std::string prefix = fmt::format("model.layers.{}.self_attn.", layer);
  const bool later = layer >= c.num_key_value_layers;
  if (!later || weights_.has_teacher) {
    SWIFTKV_RETURN_IF_ERROR(Projection(
        {{prefix + "q_proj", c.q_size()}, {prefix + "k_proj", c.kv_size()}, {prefix + "v_proj", c.kv_size()}},
        c.hidden_size, c.qkv_bias, &w->qkv_proj, &w->qkv_bias));
    if (c.qk_norm) {
      SWIFTKV_RETURN_IF_ERROR(Vector({{prefix + "q_norm.weight", c.head_dim}}, &w->q_norm));
      SWIFTKV_RETURN_IF_ERROR(Vector({{prefix + "k_norm.weight", c.head_dim}}, &w->k_norm));
    }
  }
  if (later && weights_.has_student) {
    SWIFTKV_RETURN_IF_ERROR(Projection({{prefix + "q_proj_swiftkv", c.q_size()}}, c.hidden_size, c.qkv_bias,
                                       &w->q_proj_swiftkv, &w->q_bias_swiftkv));
    if (c.qk_norm) {
      SWIFTKV_RETURN_IF_ERROR(Vector({{prefix + "q_norm_swiftkv.weight", c.head_dim}}, &w->q_norm_swiftkv));
    }
  }
  return Projection({{prefix + "o_proj", c.hidden_size}}, c.q_size(), c.o_bias, &w->o_proj, &w->o_bias);
}

Status WeightsBuilder::BuildLayer(int64_t layer, LayerWeights* w) {
  const ModelConfig& c = config_;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  SWIFTKV_RETURN_IF_ERROR(Vector({{prefix + "input_layernorm.weight", c.hidden_size}}, &w->input_layernorm));
  SWIFTKV_RETURN_IF_ERROR(
      Vector({{prefix + "post_attention_layernorm.weight", c.hidden_size}}, &w->post_attention_layernorm));
  SWIFTKV_RETURN_IF_ERROR(BuildAttention(layer, w));
  SWIFTKV_RETURN_IF_ERROR(
      Projection({{prefix + "mlp.gate_proj", c.intermediate_size}, {prefix + "mlp.up_proj", c.intermediate_size}},
                 c.hidden_size, c.mlp_bias, &w->gate_up_proj, &w->gate_up_bias));
  return Projection({{prefix + "mlp.down_proj", c.hidden_size}}, c.intermediate_size, c.mlp_bias, &w->down_proj,
                    &w->down_bias);
}

Status WeightsBuilder::BuildLater() {
  const ModelConfig& c = config_;
  LaterKvWeights& later = weights_.later;
  SWIFTKV_RETURN_IF_ERROR(Vector({{"model.norm_swiftkv.weight", c.hidden_size}}, &later.norm_swiftkv));
  std::vector<Part> keys;
  std::vector<Part> values;
  for (int64_t layer = c.num_key_value_layers; layer < c.num_hidden_layers; layer += c.key_value_group_size) {
    const std::string prefix = fmt::format("model.layers.{}.self_attn.", layer);
    keys.push_back({prefix + "k_proj_swiftkv", c.kv_size()});
    values.push_back({prefix + "v_proj_swiftkv", c.kv_size()});
    if (c.qk_norm) {
      later.k_norm.emplace_back();
      SWIFTKV_RETURN_IF_ERROR(Vector({{prefix + "k_norm_swiftkv.weight", c.head_dim}}, &later.k_norm.back()));
    }
  }
  std::vector<Part> parts = std::move(keys);
  parts.insert(parts.end(), values.begin(), values.end());
  return Projection(parts, c.hidden_size, c.qkv_bias, &later.kv_proj, &later.kv_bias);
}

Result<Weights> WeightsBuilder::Build() {
  const ModelConfig& c = config_;
  weights_.config = c;
  weights_.backend = options_.backend != nullptr ? options_.backend : &kernels::DefaultBackend();
  weights_.dtype = options_.dtype;
  weights_.has_teacher = options_.teacher || !c.is_swiftkv();
  weights_.has_student = options_.student && c.is_swiftkv();
  if (options_.dtype != DType::kBF16 && options_.dtype != DType::kF32) {
    return InvalidInput("weights can be packed as BF16 or F32, not as {}", Name(options_.dtype));
  }
  if (options_.quantization != Quantization::kNone && options_.dtype != DType::kBF16) {
    return InvalidInput("quantized weights are computed with in BF16, not in {}", Name(options_.dtype));
  }
  if (options_.quantization == Quantization::kFp8 && weights_.backend->memory().is_host()) {
    return InvalidInput("fp8 products need a CUDA device; on CPUs there are int8 and int4");
  }
  if (options_.quantization == Quantization::kInt8 && !weights_.backend->memory().is_host()) {
    return InvalidInput("int8 products are made on CPUs alone; on a GPU --quantization can be none or fp8");
  }
  if (c.head_dim > weights_.backend->max_head_dim()) {
    return InvalidInput("head_dim {}: attention on a GPU has at most {}; --device cpu runs this model", c.head_dim,
                        weights_.backend->max_head_dim());
  }
  if (!weights_.has_teacher && !weights_.has_student) {
    return InvalidInput("neither the teacher nor the student of the model was asked for");
  }
  const Part embed = {"model.embed_tokens.weight", c.vocab_size};
  if (c.tie_word_embeddings) {
    SWIFTKV_RETURN_IF_ERROR(Matrix({embed}, c.hidden_size, &weights_.lm_head));
  } else {
    SWIFTKV_RETURN_IF_ERROR(Matrix({embed}, c.hidden_size, &weights_.embed_tokens));
    SWIFTKV_RETURN_IF_ERROR(Matrix({{"lm_head.weight", c.vocab_size}}, c.hidden_size, &weights_.lm_head));
  }
  weights_.layers.resize(static_cast<size_t>(c.num_hidden_layers));
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    SWIFTKV_RETURN_IF_ERROR(BuildLayer(layer, &weights_.layers[static_cast<size_t>(layer)]));
  }
  if (weights_.has_student) SWIFTKV_RETURN_IF_ERROR(BuildLater());
  SWIFTKV_RETURN_IF_ERROR(Vector({{"model.norm.weight", c.hidden_size}}, &weights_.norm));
  return std::move(weights_);
}

Result<RowReader> OpenStored(const TensorSource& base, const TensorSource* adapter, const std::string& name,
                             const std::vector<int64_t>& shape) {
  const bool of_adapter = adapter != nullptr && name.find(kSwiftKvSuffix) != std::string::npos &&
                          (adapter->Find(name) != nullptr || base.Find(name) == nullptr);
  const TensorSource& source = of_adapter ? *adapter : base;
  const StoredTensor* const tensor = source.Find(name);
  if (tensor == nullptr) return NotFound("{}: the checkpoint has no such tensor", source.Place(name));
  if (tensor->shape != shape) {
    return InvalidInput("{}: shape [{}], the config asks for [{}]", source.Place(name), fmt::join(tensor->shape, ", "),
                        fmt::join(shape, ", "));
  }
  const auto release = [tensor](int64_t begin, int64_t count) {
    if (tensor->file == nullptr) return;
    const size_t row_bytes = tensor->data.size() / static_cast<size_t>(tensor->rows());
    // A few pages too many never matter: they are read again from the file.
    tensor->file->Release(
        tensor->data.subspan(static_cast<size_t>(begin) * row_bytes, static_cast<size_t>(count) * row_bytes));
  };
  RowReader reader;
  reader.place = source.Place(name);
  reader.floats = [tensor, release](int64_t begin, int64_t count, float* out) -> Status {
    SWIFTKV_RETURN_IF_ERROR(DecodeRows(*tensor, begin, count, out));
    release(begin, count);
    return Ok();
  };
  reader.block_type = BlockRowsType(*tensor);
  reader.blocks = [tensor, release](int64_t begin, int64_t count, BlockRows* out) -> Status {
    SWIFTKV_RETURN_IF_ERROR(DecodeBlockRows(*tensor, begin, count, out));
    release(begin, count);
    return Ok();
  };
  return reader;
}

// splitmix64 (public domain, Sebastiano Vigna).
uint64_t NextRandom(uint64_t* state) {
  *state += 0x9e3779b97f4a7c15u;
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Uniform values: of variance 1 / columns in a matrix, so that activations keep their size; within 0.1 of their usual
// value in norms (1) and biases (0).
RowReader RandomRows(uint64_t seed, const std::string& name, const std::vector<int64_t>& shape) {
  const bool is_norm = name.find("norm") != std::string::npos;
  const int64_t columns = shape.back();
  const float center = is_norm ? 1.0f : 0.0f;
  const float range = shape.size() == 1 ? 0.1f : std::sqrt(3.0f / static_cast<float>(columns));
  uint64_t tensor_seed = seed;
  for (const char c : name) tensor_seed = (tensor_seed ^ static_cast<uint8_t>(c)) * 0x100000001b3u;  // FNV-1a
  RowReader reader;
  reader.place = name;
  reader.floats = [=](int64_t begin, int64_t count, float* out) -> Status {
    for (int64_t row = begin; row < begin + count; ++row) {
      uint64_t state = tensor_seed + static_cast<uint64_t>(row) * 0xd1342543de82ef95u;
      for (int64_t i = 0; i < columns; ++i) {
        const auto bits = static_cast<int32_t>(NextRandom(&state) >> 32);
        *out++ = center + range * (static_cast<float>(bits) * 0x1p-31f);
      }
    }
    return Ok();
  };
  return reader;
}

Result<Weights> Build(const ModelConfig& config, const LoadOptions& options, OpenTensor open) {
  SWIFTKV_ASSIGN_OR_RETURN(Weights weights, WeightsBuilder(config, options, std::move(open)).Build());
  if (options.quantization == Quantization::kInt8) SWIFTKV_RETURN_IF_ERROR(QuantizeToInt8(&weights));
  SWIFTKV_RETURN_IF_ERROR(weights.backend->TakeError());  // of packing
  return weights;
}

}  // namespace

double BytesPerWeight(const Weights& weights) {
  double bytes = 0;
  double elements = 0;
  const auto add = [&](const PackedMatrix& matrix) {
    bytes += static_cast<double>(matrix.data.bytes());
    elements += static_cast<double>(matrix.n) * static_cast<double>(matrix.k);
  };
  for (const LayerWeights& layer : weights.layers) {
    add(layer.qkv_proj);
    add(layer.q_proj_swiftkv);
    add(layer.o_proj);
    add(layer.gate_up_proj);
    add(layer.down_proj);
  }
  add(weights.later.kv_proj);
  add(weights.embed_tokens);
  add(weights.lm_head);
  return bytes / elements;
}

DType ProductDType(const Weights& weights) {
  if (weights.layers.front().o_proj.dtype == DType::kF8E4M3) return DType::kF8E4M3;
  const bool multiplies_int8 = weights.lm_head.dtype == DType::kI8 || weights.lm_head.int8_inputs;
  return multiplies_int8 ? DType::kI8 : weights.dtype;
}

Result<Weights> LoadWeights(const ModelConfig& config, const TensorSource& base, const TensorSource* adapter,
                            const LoadOptions& options) {
  return Build(config, options, [&](const std::string& name, const std::vector<int64_t>& shape) {
    return OpenStored(base, adapter, name, shape);
  });
}

Result<Weights> RandomWeights(const ModelConfig& config, uint64_t seed, const LoadOptions& options) {
  return Build(config, options,
               [seed](const std::string& name, const std::vector<int64_t>& shape) -> Result<RowReader> {
                 return RandomRows(seed, name, shape);
               });
}

}  // namespace swiftkv
