#include "model/quality.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace swiftkv {
namespace {

constexpr int64_t kTokensPerStep = 1024;
constexpr int64_t kRowsPerTile = 64;  // logits are wide: 2 x 64 x 128,256 floats are 66 MB

struct Sums {
  double kl = 0;
  double agreement = 0;
  double teacher_nll = 0;
  double student_nll = 0;
  int64_t rows = 0;
  int64_t targets = 0;
};

// Compares logits of `rows` rows; targets[r] is the token that follows row r, or -1.
void Compare(const kernels::Backend& backend, const std::vector<float>& teacher, const std::vector<float>& student,
             int64_t rows, int64_t vocab, const int32_t* targets, Sums* sums) {
  std::vector<float> kl(static_cast<size_t>(rows));
  std::vector<kernels::LogitStats> teacher_stats(kl.size()), student_stats(kl.size());
  backend.KlDivergence(teacher.data(), student.data(), rows, vocab, kl.data());
  backend.ComputeLogitStats(teacher.data(), rows, vocab, teacher_stats.data());
  backend.ComputeLogitStats(student.data(), rows, vocab, student_stats.data());
  sums->rows += rows;
  for (size_t r = 0; r < kl.size(); ++r) {
    sums->kl += static_cast<double>(kl[r]);
    sums->agreement += teacher_stats[r].argmax == student_stats[r].argmax ? 1.0 : 0.0;
    if (targets[r] < 0) continue;
    const size_t target = r * static_cast<size_t>(vocab) + static_cast<size_t>(targets[r]);
    sums->teacher_nll += static_cast<double>(teacher_stats[r].log_sum_exp - teacher[target]);
    sums->student_nll += static_cast<double>(student_stats[r].log_sum_exp - student[target]);
    ++sums->targets;
  }
}

std::vector<int32_t> NextTokens(std::span<const TokenSequence> sequences) {
  std::vector<int32_t> next;
  for (const TokenSequence& sequence : sequences) {
    if (sequence.empty()) continue;
    next.insert(next.end(), sequence.begin() + 1, sequence.end());
    next.push_back(-1);
  }
  return next;
}

}  // namespace

Result<Quality> MeasureQuality(const Weights& weights, std::span<const TokenSequence> sequences) {
  // Logits come to the host and are compared there.
  const bool on_host = weights.backend->memory().is_host();
  const kernels::Backend& compares = on_host ? *weights.backend : kernels::DefaultBackend();
  const int64_t vocab = weights.config.vocab_size;
  SequenceRunner teacher(weights, Mode::kTeacher);
  SequenceRunner student(weights, Mode::kStudent);
  std::vector<float> teacher_logits(static_cast<size_t>(kRowsPerTile * vocab)), student_logits(teacher_logits.size());
  Sums sums;
  for (const std::span<const TokenSequence> batch : Batches(sequences, kTokensPerStep)) {
    SWIFTKV_RETURN_IF_ERROR(teacher.Run(batch));
    SWIFTKV_RETURN_IF_ERROR(student.Run(batch));
    const std::vector<int32_t> targets = NextTokens(batch);
    const auto rows = static_cast<int64_t>(targets.size());
    for (int64_t begin = 0; begin < rows; begin += kRowsPerTile) {
      const int64_t count = std::min(kRowsPerTile, rows - begin);
      SWIFTKV_RETURN_IF_ERROR(teacher.Logits(begin, count, teacher_logits.data()));
      SWIFTKV_RETURN_IF_ERROR(student.Logits(begin, count, student_logits.data()));
      Compare(compares, teacher_logits, student_logits, count, vocab, targets.data() + begin, &sums);
    }
  }
  if (sums.rows == 0 || sums.targets == 0) return InvalidInput("no held-out text to measure on");
  const auto rows = static_cast<double>(sums.rows);
  const auto scored = static_cast<double>(sums.targets);
  return Quality{sums.rows, sums.kl / rows, sums.agreement / rows, sums.teacher_nll / scored,
                 sums.student_nll / scored};
}

}  // namespace swiftkv
