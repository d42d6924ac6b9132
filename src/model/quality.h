// How close a student is to its teacher on text that it was not fitted to.
#ifndef SWIFTKV_MODEL_QUALITY_H_
#define SWIFTKV_MODEL_QUALITY_H_

#include <cstdint>
#include <span>

#include "base/status.h"
#include "model/sequence_batch.h"
#include "model/weights.h"

namespace swiftkv {

struct Quality {
  int64_t tokens = 0;      // positions compared
  double kl = 0;           // mean KL(teacher || student) at T = 1, in nats
  double agreement = 0;    // share of positions where both have the same most likely token
  double teacher_nll = 0;  // cross-entropy of the next token, in nats; exp gives the perplexity
  double student_nll = 0;
};

// `weights` must hold teacher and student. Every sequence is scored from position 0, all rows surviving.
Result<Quality> MeasureQuality(const Weights& weights, std::span<const TokenSequence> sequences);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_QUALITY_H_
