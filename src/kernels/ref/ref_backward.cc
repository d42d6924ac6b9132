// The oracle of the backward operations: each formula of backward_ops.h as plain loops in double.
#include "kernels/ref/ref_backward.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ref/ref_math.h"

namespace swiftkv::kernels {
namespace {

using ref::Load;
using ref::Store;

// Attention of one query head, its scores recomputed from q and K.
class HeadBackward {
 public:
  HeadBackward(const AttentionBackwardArgs& args, int64_t head)
      : args_(args), head_(head), kv_head_(head / (args.heads / args.kv_heads)) {}

  void Row(const AttentionDocument& document, int64_t r) const {
    const int64_t first = args_.window > 0 ? std::max(document.row_begin, r - args_.window + 1) : document.row_begin;
    double dout_out = 0;
    for (int64_t i = 0; i < args_.head_dim; ++i) dout_out += DOut(r, i) * Out(r, i);
    std::vector<double> dq(args_.head_dim);
    for (int64_t t = first; t <= r; ++t) {
      double score = 0;
      double dout_v = 0;
      for (int64_t i = 0; i < args_.head_dim; ++i) {
        score += Q(r, i) * K(t, i);
        dout_v += DOut(r, i) * V(t, i);
      }
      const double p = std::exp(args_.scale * score - args_.log_sum_exp[r * args_.heads + head_]);
      const double ds = args_.scale * p * (dout_v - dout_out);
      for (int64_t i = 0; i < args_.head_dim; ++i) {
        dq[i] += ds * K(t, i);
        args_.dk[t * args_.dkv_stride + kv_head_ * args_.head_dim + i] += static_cast<float>(ds * Q(r, i));
        args_.dv[t * args_.dkv_stride + kv_head_ * args_.head_dim + i] += static_cast<float>(p * DOut(r, i));
      }
    }
    for (int64_t i = 0; i < args_.head_dim; ++i) {
      args_.dq[r * args_.dq_stride + head_ * args_.head_dim + i] = static_cast<float>(dq[i]);
    }
  }

 private:
  double Rounded(float value) const { return args_.dtype == DType::kBF16 ? ToFloat(ToBFloat16(value)) : value; }
  double Q(int64_t r, int64_t i) const { return Rounded(args_.q[r * args_.q_stride + head_ * args_.head_dim + i]); }
  double K(int64_t t, int64_t i) const { return Rounded(args_.k[t * args_.kv_stride + kv_head_ * args_.head_dim + i]); }
  double V(int64_t t, int64_t i) const { return Rounded(args_.v[t * args_.kv_stride + kv_head_ * args_.head_dim + i]); }
  double Out(int64_t r, int64_t i) const {
    return Load(args_.out, r * args_.out_stride + head_ * args_.head_dim + i, args_.dtype);
  }
  double DOut(int64_t r, int64_t i) const {
    return Load(args_.dout, r * args_.out_stride + head_ * args_.head_dim + i, args_.dtype);
  }

  const AttentionBackwardArgs& args_;
  int64_t head_;
  int64_t kv_head_;
};

// log_softmax(logits / temperature)
std::vector<double> LogSoftmax(const float* logits, int64_t vocab, double temperature) {
  std::vector<double> result(logits, logits + vocab);
  const double max = *std::max_element(result.begin(), result.end());
  double sum = 0;
  for (double& value : result) {
    value = (value - max) / temperature;
    sum += std::exp(value);
  }
  for (double& value : result) value -= std::log(sum);
  return result;
}

class RefBackward final : public BackwardOps {
 public:
  void RmsNorm(const RmsNormBackwardArgs& args) const override {
    std::vector<double> dweight(args.size);
    for (int64_t r = 0; r < args.rows; ++r) {
      for (int64_t head = 0; head < args.heads; ++head) {
        const float* x = args.x + r * args.x_stride + head * args.size;
        const float* dy = args.dy + r * args.dy_stride + head * args.size;
        double squares = 0;
        for (int64_t i = 0; i < args.size; ++i) squares += static_cast<double>(x[i]) * x[i];
        const double scale = 1 / std::sqrt(squares / static_cast<double>(args.size) + args.eps);
        double projection = 0;
        for (int64_t i = 0; i < args.size; ++i) {
          projection += static_cast<double>(dy[i]) * args.weight[i] * x[i] * scale;
          dweight[i] += dy[i] * x[i] * scale;
        }
        projection /= static_cast<double>(args.size);
        for (int64_t i = 0; i < args.size && args.dx != nullptr; ++i) {
          float& dx = args.dx[r * args.dx_stride + head * args.size + i];
          const double gradient = scale * (static_cast<double>(dy[i]) * args.weight[i] - x[i] * scale * projection);
          dx = static_cast<float>(gradient) + (args.accumulate ? dx : 0.0f);
        }
      }
    }
    for (int64_t i = 0; i < args.size && args.dweight != nullptr; ++i) {
      args.dweight[i] += static_cast<float>(dweight[i]);
    }
  }

  void Rope(const RopeBackwardArgs& args) const override {
    const int64_t half = args.head_dim / 2;
    for (int64_t r = 0; r < args.rows; ++r) {
      const float* cos = args.cos + args.positions[r] * half;
      const float* sin = args.sin + args.positions[r] * half;
      for (int64_t head = 0; head < args.heads; ++head) {
        float* d = args.dx + r * args.dx_stride + head * args.head_dim;
        for (int64_t i = 0; i < half; ++i) {
          const float d1 = d[i];
          const float d2 = d[i + half];
          d[i] = d1 * cos[i] + d2 * sin[i];
          d[i + half] = d2 * cos[i] - d1 * sin[i];
        }
      }
    }
  }

  void SiluMul(const SiluMulBackwardArgs& args) const override {
    for (int64_t r = 0; r < args.rows; ++r) {
      for (int64_t i = 0; i < args.size; ++i) {
        const double gate = Load(args.gate_up, r * args.gate_up_stride + i, args.dtype);
        const double up = Load(args.gate_up, r * args.gate_up_stride + args.size + i, args.dtype);
        const double dy = Load(args.dy, r * args.dy_stride + i, args.dtype);
        const double sigmoid = 1 / (1 + std::exp(-gate));
        const int64_t out = r * args.dgate_up_stride + i;
        const double dgate = dy * up * sigmoid * (1 + gate * (1 - sigmoid));
        Store(args.dgate_up, out, args.dtype, static_cast<float>(dgate));
        Store(args.dgate_up, out + args.size, args.dtype, static_cast<float>(dy * gate * sigmoid));
      }
    }
  }

  void Attention(const AttentionBackwardArgs& args) const override {
    for (const AttentionDocument& document : args.documents) {
      for (int64_t head = 0; head < args.heads; ++head) {
        const HeadBackward backward(args, head);
        for (int64_t r = 0; r < document.rows; ++r) backward.Row(document, document.row_begin + r);
      }
    }
  }

  void KlLoss(const KlLossArgs& args) const override {
    const double t = args.temperature;
    for (int64_t r = 0; r < args.rows; ++r) {
      const float* teacher = args.teacher + r * args.vocab;
      const float* student = args.student + r * args.vocab;
      const std::vector<double> log_p = LogSoftmax(teacher, args.vocab, t);
      const std::vector<double> log_q = LogSoftmax(student, args.vocab, t);
      double kl = 0;
      for (int64_t i = 0; i < args.vocab; ++i) {
        const double p = std::exp(log_p[i]);
        const double q = std::exp(log_q[i]);
        kl += p * (log_p[i] - log_q[i]);
        Store(args.dlogits, r * args.vocab + i, args.dtype, static_cast<float>(args.row_scale * t * (q - p)));
      }
      args.stats[r] = {.loss = t * t * kl,
                       .agree = std::max_element(teacher, teacher + args.vocab) - teacher ==
                                std::max_element(student, student + args.vocab) - student};
    }
  }

  void Round(const RoundArgs& args) const override {
    for (int64_t r = 0; r < args.rows; ++r) {
      for (int64_t i = 0; i < args.size; ++i) {
        Store(args.out, r * args.out_stride + i, args.dtype, args.x[r * args.x_stride + i]);
      }
    }
  }
};

}  // namespace

const BackwardOps& RefBackwardOps() {
  static const RefBackward ops;
  return ops;
}

}  // namespace swiftkv::kernels
