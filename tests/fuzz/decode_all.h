// What a model's loader does with every tensor that a reader accepts.
#ifndef SWIFTKV_TESTS_FUZZ_DECODE_ALL_H_
#define SWIFTKV_TESTS_FUZZ_DECODE_ALL_H_

#include <string>
#include <vector>

#include "checkpoint/tensor_source.h"

namespace swiftkv {

inline void DecodeAll(const TensorSource& source) {
  for (const std::string& name : source.names()) {
    const StoredTensor& tensor = *source.Find(name);
    if (tensor.rows() == 0 || tensor.columns() == 0) continue;
    std::vector<float> row(tensor.columns());
    for (const int64_t i : {int64_t{0}, tensor.rows() / 2, tensor.rows() - 1}) {
      (void)DecodeRows(tensor, i, 1, row.data());
      BlockRows blocks;
      if (BlockRowsType(tensor)) (void)DecodeBlockRows(tensor, i, 1, &blocks);
    }
  }
}

}  // namespace swiftkv

#endif  // SWIFTKV_TESTS_FUZZ_DECODE_ALL_H_
