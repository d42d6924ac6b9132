// Weights in int8 with dynamically quantized inputs (W8A8, kernels/ops.h): which input features stay exact, and the
// packing.
//
//   SWIFTKV_RETURN_IF_ERROR(QuantizeToInt8(&weights));   // of a model that was packed in bf16 or blocks of its file
//
// A few features of a transformer's activations are many times larger than the others, whatever the text is; one scale
// for a whole row then leaves the others no digits (Dettmers et al. 2022, arXiv 2208.07339). Which features those are
// is measured on random tokens, so that no text is needed.
#ifndef SWIFTKV_MODEL_INT8_WEIGHTS_H_
#define SWIFTKV_MODEL_INT8_WEIGHTS_H_

#include "base/status.h"
#include "model/weights.h"

namespace swiftkv {

// Packs every matrix anew, one after another: needs the memory of the largest beside those that there are.
// Errors: kResourceExhausted.
Status QuantizeToInt8(Weights* weights);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_INT8_WEIGHTS_H_
