#include "model/int8_weights.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/bfloat16.h"
#include "base/parallel.h"
#include "model/sequence_batch.h"

namespace swiftkv {
namespace {

using kernels::PackedMatrix;

constexpr int64_t kTokens = 256;
// Of a matrix's input features, at most one in so many is exact.
constexpr int64_t kExactShare = 16;
constexpr int64_t kPackRows = 64;            // Backend::PackRows
constexpr int64_t kBatchElements = 1 << 20;  // unpacked at once

// The largest magnitude of every input feature of every matrix.
class InputMaxima : public ForwardObserver {
 public:
  bool WantsProjections() const override { return false; }
  void GemmInput(const PackedMatrix& matrix, const void* x, int64_t rows) override {
    std::vector<float>& maxima = maxima_[&matrix];
    maxima.resize(static_cast<size_t>(matrix.k));
    const auto* values = static_cast<const BFloat16*>(x);
    for (int64_t row = 0; row < rows; ++row, values += matrix.k) {
      for (int64_t k = 0; k < matrix.k; ++k) {
        float& maximum = maxima[static_cast<size_t>(k)];
        maximum = std::max(maximum, std::fabs(ToFloat(values[k])));
      }
    }
  }

  // The features with the largest maxima, ascending; none for a matrix that was never used.
  std::vector<int32_t> Largest(const PackedMatrix& matrix) const {
    const auto found = maxima_.find(&matrix);
    if (found == maxima_.end()) return {};
    std::vector<int32_t> features(static_cast<size_t>(matrix.k));
    std::iota(features.begin(), features.end(), 0);
    const auto count = std::min(kernels::kMaxExactFeatures, matrix.k / kExactShare);
    std::partial_sort(features.begin(), features.begin() + count, features.end(), [&](int32_t a, int32_t b) {
      return found->second[static_cast<size_t>(a)] > found->second[static_cast<size_t>(b)];
    });
    features.resize(static_cast<size_t>(count));
    std::sort(features.begin(), features.end());
    return features;
  }

 private:
  std::map<const PackedMatrix*, std::vector<float>> maxima_;
};

Status Measure(const Weights& weights, InputMaxima* maxima) {
  std::mt19937 random(1);
  TokenSequence tokens(static_cast<size_t>(std::min(kTokens, weights.config.max_position_embeddings)));
  for (int32_t& token : tokens)
    token = static_cast<int32_t>(random() % static_cast<uint64_t>(weights.config.vocab_size));
  for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
    if (mode == Mode::kTeacher ? !weights.has_teacher : !weights.has_student) continue;
    SWIFTKV_RETURN_IF_ERROR(SequenceRunner(weights, mode).Run({&tokens, 1}, maxima));
  }
  return Ok();
}

// Calls pack(begin, count) for all rows in parallel.
template <class Pack>
void PackAllRows(int64_t rows, const Pack& pack) {
  ParallelFor((rows + kPackRows - 1) / kPackRows, [&](int64_t task) {
    const int64_t begin = task * kPackRows;
    pack(begin, std::min(kPackRows, rows - begin));
  });
}

Status QuantizeRows(const kernels::Backend& backend, const PackedMatrix& from, PackedMatrix* to) {
  const int64_t batch_rows = std::max<int64_t>(1, kBatchElements / from.k / kPackRows) * kPackRows;
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer rows, AlignedBuffer::Allocate(batch_rows * from.k * 4, "rows to pack"));
  std::vector<int32_t> ids(static_cast<size_t>(from.n));
  std::iota(ids.begin(), ids.end(), 0);
  for (int64_t batch = 0; batch < from.n; batch += batch_rows) {
    const int64_t count = std::min(batch_rows, from.n - batch);
    backend.UnpackRows(from, ids.data() + batch, count, rows.as<float>());
    PackAllRows(count, [&](int64_t begin, int64_t task_rows) {
      backend.PackRows(rows.as<float>() + begin * from.k, batch + begin, task_rows, to);
    });
  }
  return Ok();
}

Status Repack(const kernels::Backend& backend, std::vector<int32_t> exact_features, PackedMatrix* matrix) {
  if (matrix->n == 0) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(PackedMatrix packed, backend.AllocateInt8(matrix->n, matrix->k, std::move(exact_features)));
  if (matrix->dtype == DType::kQ8_K) {
    PackAllRows(matrix->n, [&](int64_t begin, int64_t rows) { backend.RepackInt8Rows(*matrix, begin, rows, &packed); });
  } else {
    SWIFTKV_RETURN_IF_ERROR(QuantizeRows(backend, *matrix, &packed));
  }
  *matrix = std::move(packed);
  matrix->data.UseHugePages();
  return Ok();
}

}  // namespace

Status QuantizeToInt8(Weights* weights) {
  InputMaxima maxima;
  SWIFTKV_RETURN_IF_ERROR(Measure(*weights, &maxima));
  const auto repack = [&](PackedMatrix* matrix) { return Repack(*weights->backend, maxima.Largest(*matrix), matrix); };
  SWIFTKV_RETURN_IF_ERROR(repack(&weights->embed_tokens));
  SWIFTKV_RETURN_IF_ERROR(repack(&weights->lm_head));
  SWIFTKV_RETURN_IF_ERROR(repack(&weights->later.kv_proj));
  for (LayerWeights& layer : weights->layers) {
    for (PackedMatrix* matrix :
         {&layer.qkv_proj, &layer.q_proj_swiftkv, &layer.o_proj, &layer.gate_up_proj, &layer.down_proj}) {
      SWIFTKV_RETURN_IF_ERROR(repack(matrix));
    }
  }
  return Ok();
}

}  // namespace swiftkv
