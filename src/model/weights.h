// All weights of a model, packed once for the backend that runs them. One set serves two modes: the teacher (original
// q/k/v) and the student (SwiftKV); loading takes only what the wanted modes use.
#ifndef SWIFTKV_MODEL_WEIGHTS_H_
#define SWIFTKV_MODEL_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "checkpoint/tensor_source.h"
#include "kernels/ops.h"
#include "model/config.h"

namespace swiftkv {

enum class Mode { kTeacher, kStudent };

struct LayerWeights {
  std::vector<float> input_layernorm;           // [hidden]
  std::vector<float> post_attention_layernorm;  // [hidden]
  // Layers < n in any mode; layers >= n only where the teacher was asked for.
  kernels::PackedMatrix qkv_proj;  // [q_size + 2 kv_size, hidden]
  std::vector<float> qkv_bias;     // [q_size + 2 kv_size] or empty
  std::vector<float> q_norm;       // [head_dim] or empty
  std::vector<float> k_norm;       // [head_dim] or empty
  // Layers >= n of the student.
  kernels::PackedMatrix q_proj_swiftkv;  // [q_size, hidden]
  std::vector<float> q_bias_swiftkv;     // [q_size] or empty
  std::vector<float> q_norm_swiftkv;     // [head_dim] or empty
  kernels::PackedMatrix o_proj;          // [hidden, q_size]
  std::vector<float> o_bias;             // [hidden] or empty
  kernels::PackedMatrix gate_up_proj;    // [2 intermediate, hidden]: gate rows, then up rows
  std::vector<float> gate_up_bias;       // [2 intermediate] or empty
  kernels::PackedMatrix down_proj;       // [hidden, intermediate]
  std::vector<float> down_bias;          // [hidden] or empty
};

// K/V of every layer >= n from one input: all KV groups' projections as one matrix, so that a step runs one GEMM.
struct LaterKvWeights {
  std::vector<float> norm_swiftkv;         // [hidden]
  kernels::PackedMatrix kv_proj;           // [2 (L - n) / g kv_size, hidden]: k of every group, then v of every group
  std::vector<float> kv_bias;              // [2 (L - n) / g kv_size] or empty
  std::vector<std::vector<float>> k_norm;  // [(L - n) / g][head_dim] or empty
};

struct Weights {
  ModelConfig config;
  const kernels::Backend* backend = nullptr;
  DType dtype = DType::kBF16;  // of activations, and of weights that are not quantized
  bool has_teacher = false;
  bool has_student = false;
  kernels::PackedMatrix embed_tokens;  // [vocab, hidden]; empty when tied: rows are read from lm_head
  kernels::PackedMatrix lm_head;       // [vocab, hidden]
  std::vector<float> norm;             // [hidden]
  std::vector<LayerWeights> layers;    // [L]
  LaterKvWeights later;
};

// How weight matrices are kept; all but kNone need dtype kBF16, and a matrix whose columns are no multiple of 32 stays
// in it.
enum class Quantization {
  kNone,  // in LoadOptions::dtype
  // Matrices that the file has in blocks keep their bits (BlockRowsType): a plain model's results
  // are those of kNone. What SwiftKV has in place of such ones, in more bits in its own file, is made Q8_0, so that
  // decoding reads little more than the base's.
  kStored,
  kQ8_0,  // 8 bits, a scale for each 32 input features
  kQ4_1,  // 4 bits, a scale and a minimum for each 32; embeddings and lm_head in Q8_0
  kInt8,  // int8 weights and inputs, any number of columns (model/int8_weights.h)
  // Products of 4-bit weights as the file has them (Q4_0, Q4_1, Q4_K), or made so, with int8 inputs. In 8 bits:
  // embeddings, lm_head, and what SwiftKV added.
  kInt4,
  // E4M3 weights and inputs (kernels::PackedMatrix), CUDA alone; embeddings and lm_head in LoadOptions::dtype.
  kFp8,
};

struct LoadOptions {
  DType dtype = DType::kBF16;  // kBF16 or kF32
  Quantization quantization = Quantization::kNone;
  bool teacher = false;                       // load the original q/k/v of layers >= n; implied by a plain model
  bool student = true;                        // load the SwiftKV tensors; ignored for a plain model
  const kernels::Backend* backend = nullptr;  // null: kernels::DefaultBackend()
};

// Bytes of memory an element of the packed matrices has on average, scales included.
double BytesPerWeight(const Weights& weights);
// What products multiply: kI8 where weights are kInt8 or kInt4, kF8E4M3 where they are kFp8, else the weights' dtype.
DType ProductDType(const Weights& weights);

// Reads tensors under their Hugging Face names from `base`, SwiftKV ones from `adapter` first where it is not null.
// Peak memory at most 1.15 times the packed weights (kInt8: those it starts from, which are the file's blocks and else
// BF16, and the largest matrix): the pages of a mapped file are given back as they are packed.
// Weights with student and teacher for distillation must not be quantized.
// Errors: kNotFound (a missing tensor), kInvalidInput (a wrong shape, NaN or infinite values), kResourceExhausted.
Result<Weights> LoadWeights(const ModelConfig& config, const TensorSource& base, const TensorSource* adapter,
                            const LoadOptions& options);

// A model of the same shapes with pseudo-random weights (norms near 1), for benchmarks and tests that need no
// checkpoint. The same seed gives the same values at any thread count.
Result<Weights> RandomWeights(const ModelConfig& config, uint64_t seed, const LoadOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_WEIGHTS_H_
