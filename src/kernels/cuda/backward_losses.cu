// Losses and their gradients, a block for each row.
#include <cfloat>
#include <climits>

#include "kernels/cuda/backward.h"
#include "kernels/cuda/device-inl.h"
#include "kernels/cuda/logits-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kHiddenThreads = 256;

__device__ double BlockSumOfDoubles(double value) {
  return BlockReduce(value, 0.0, [](double a, double b) { return a + b; });
}

// One side's softmax at a temperature: a thread's maximum so far, where it was first, and the sum of
// e^((logit - max) / temperature).
struct Softmax {
  float max = -FLT_MAX;  // finite, so that -infinity less it is -infinity, not NaN
  int argmax = INT_MAX;
  float sum = 0;

  // Returns what sums over such weights must be multiplied by.
  __device__ float RaiseMax(float other, float inverse_temperature) {
    const float raised = fmaxf(max, other);
    const float factor = expf((max - raised) * inverse_temperature);
    max = raised;
    sum *= factor;
    return factor;
  }
  __device__ float AddBatch(const Batch& batch, int begin, float inverse_temperature) {
    const float batch_max = MaxOf(batch);
    if (batch_max > max) argmax = begin + FirstOf(batch, batch_max);
    return RaiseMax(batch_max, inverse_temperature);
  }
  // Over the block: all threads get the row's maximum and where it is first; `sum` stays the thread's own.
  __device__ float MergeMax(float inverse_temperature) {
    const float row_max = BlockMax(max, -FLT_MAX);
    argmax = BlockMin(max == row_max ? argmax : INT_MAX, INT_MAX);
    return RaiseMax(row_max, inverse_temperature);
  }
};

// What the gradient of a row needs.
struct KlRow {
  float teacher_max;
  float student_max;
  float teacher_inverse_sum;
  float student_inverse_sum;
  double log_ratio;  // log-sum-exp of the student less the teacher's
};

template <bool kAligned>
__device__ KlRow ComputeKlRow(const KlLossArgs& args, const float* teacher, const float* student, KlLossRow* stats) {
  const int vocab = static_cast<int>(args.vocab);
  const float inverse_temperature = 1.0f / args.temperature;
  Softmax t;
  Softmax s;
  float differences = 0;  // sum of the teacher's weights times (teacher - student)
  for (int begin = 0; begin < vocab; begin += kBatch) {
    const Batch teachers = LoadBatch<kAligned>(teacher, begin, vocab);
    const Batch students = LoadBatch<kAligned>(student, begin, vocab);
    differences *= t.AddBatch(teachers, begin, inverse_temperature);
    s.AddBatch(students, begin, inverse_temperature);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const float weight = expf((teachers.values[v][e] - t.max) * inverse_temperature);
        t.sum += weight;
        // Beyond the row's end both are -infinity.
        if (weight > 0) differences += weight * (teachers.values[v][e] - students.values[v][e]);
        s.sum += expf((students.values[v][e] - s.max) * inverse_temperature);
      }
    }
  }
  differences *= t.MergeMax(inverse_temperature);
  s.MergeMax(inverse_temperature);
  const double t_sum = BlockSumOfDoubles(t.sum);
  const double s_sum = BlockSumOfDoubles(s.sum);
  const double mean = BlockSumOfDoubles(differences) / t_sum;
  const double temperature = args.temperature;
  // By the same rounded factor as each token's, so that what is equal cancels.
  const double log_ratio =
      (static_cast<double>(s.max) - static_cast<double>(t.max)) * inverse_temperature + log(s_sum / t_sum);
  if (threadIdx.x == 0) {
    stats->loss = temperature * temperature * (mean * inverse_temperature + log_ratio);
    stats->agree = t.argmax == s.argmax;
  }
  return {.teacher_max = t.max,
          .student_max = s.max,
          .teacher_inverse_sum = static_cast<float>(1 / t_sum),
          .student_inverse_sum = static_cast<float>(1 / s_sum),
          .log_ratio = log_ratio};
}

// q - p of one token, without cancellation where they are close: with d = log q - log p it is the larger of the two
// times 1 - e^-|d|, with the sign of d.
__device__ __forceinline__ float Difference(const KlRow& row, float teacher, float student, float inverse_temperature) {
  const auto d = static_cast<float>(static_cast<double>(student - teacher) * inverse_temperature - row.log_ratio);
  const bool student_is_larger = d > 0;
  const float logit = student_is_larger ? student - row.student_max : teacher - row.teacher_max;
  const float larger =
      expf(logit * inverse_temperature) * (student_is_larger ? row.student_inverse_sum : row.teacher_inverse_sum);
  return copysignf(larger * -expm1f(-fabsf(d)), d);
}

template <typename T, bool kAligned>
__global__ void __launch_bounds__(kMaxThreads) KlLossKernel(const KlLossArgs args) {
  const int64_t r = blockIdx.x;
  const float* const teacher = args.teacher + r * args.vocab;
  const float* const student = args.student + r * args.vocab;
  T* const dlogits = static_cast<T*>(args.dlogits) + r * args.vocab;
  const KlRow row = ComputeKlRow<kAligned>(args, teacher, student, args.stats + r);
  const float inverse_temperature = 1.0f / args.temperature;
  const float scale = args.row_scale * args.temperature;
  const int vocab = static_cast<int>(args.vocab);
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) * kVector; i < vocab; i += kMaxThreads * kVector) {
    const Floats<kVector> t = LoadFloats<kAligned, kVector>(teacher, i, vocab);
    const Floats<kVector> s = LoadFloats<kAligned, kVector>(student, i, vocab);
    Floats<kVector> gradient;
#pragma unroll
    for (int e = 0; e < kVector; ++e) gradient[e] = scale * Difference(row, t[e], s[e], inverse_temperature);
    StoreFloats<kAligned>(gradient, dlogits, i, vocab);
  }
}

// losses[row]
__global__ void __launch_bounds__(kHiddenThreads) HiddenLossKernel(const HiddenLossArgs args, double* losses) {
  const int64_t begin = blockIdx.x * args.size;
  double square = 0;
  double teacher_square = 0;
  for (int64_t i = begin + threadIdx.x; i < begin + args.size; i += kHiddenThreads) {
    const double t = args.teacher[i];
    const double difference = static_cast<double>(args.student[i]) - t;
    square += difference * difference;
    teacher_square += t * t;
  }
  square = BlockSumOfDoubles(square);
  teacher_square = BlockSumOfDoubles(teacher_square);
  // A teacher's row of zeros has nothing to be relative to.
  const double unit = args.relative ? fmax(teacher_square, 1e-30) : static_cast<double>(args.size);
  const double weight = 1 / (unit * static_cast<double>(args.tokens));
  if (threadIdx.x == 0) losses[blockIdx.x] = square * weight;
  const auto factor = static_cast<float>(2 * weight * args.scale);
  for (int64_t i = begin + threadIdx.x; i < begin + args.size; i += kHiddenThreads) {
    args.dhidden[i] = __fadd_rn(args.dhidden[i], __fmul_rn(factor, args.student[i] - args.teacher[i]));
  }
}

__global__ void __launch_bounds__(kHiddenThreads) AddLossesKernel(const double* losses, int64_t rows, double* loss) {
  double sum = 0;
  for (int64_t r = threadIdx.x; r < rows; r += kHiddenThreads) sum += losses[r];
  sum = BlockSumOfDoubles(sum);
  if (threadIdx.x == 0) *loss += sum;
}

}  // namespace

void KlLoss(const KlLossArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  WithBool(args.dtype == DType::kBF16, [&](auto is_bf16) {
    using T = std::conditional_t<decltype(is_bf16)::value, BF16, float>;
    const bool vectors = args.vocab % kVector == 0 && IsAligned<kVector>(args.teacher, args.vocab) &&
                         IsAligned<kVector>(args.student, args.vocab) &&
                         IsAligned<kVector>(static_cast<const T*>(args.dlogits), args.vocab);
    WithBool(vectors, [&](auto aligned) {
      KlLossKernel<T, decltype(aligned)::value><<<static_cast<unsigned>(args.rows), kMaxThreads, 0, stream>>>(args);
    });
  });
}

void HiddenLoss(const HiddenLossArgs& args, std::byte* workspace, cudaStream_t stream) {
  if (args.rows == 0) return;
  auto* const losses = reinterpret_cast<double*>(workspace);
  HiddenLossKernel<<<static_cast<unsigned>(args.rows), kHiddenThreads, 0, stream>>>(args, losses);
  AddLossesKernel<<<1, kHiddenThreads, 0, stream>>>(losses, args.rows, args.loss);
}

int64_t HiddenLossWorkspaceBytes(int64_t rows) { return rows * int64_t{sizeof(double)}; }

}  // namespace swiftkv::kernels::cuda
