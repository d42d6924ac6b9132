// The reference twins of backward_ops.h.
#ifndef SWIFTKV_KERNELS_REF_REF_BACKWARD_H_
#define SWIFTKV_KERNELS_REF_REF_BACKWARD_H_

#include "kernels/backward_ops.h"

namespace swiftkv::kernels {

const BackwardOps& RefBackwardOps();

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_REF_REF_BACKWARD_H_
