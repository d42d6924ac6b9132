// A Hugging Face folder of a tiny Llama with pseudo-random weights and one character a token, written by the test.
#ifndef SWIFTKV_TESTS_E2E_TINY_MODEL_H_
#define SWIFTKV_TESTS_E2E_TINY_MODEL_H_

#include <string>

namespace swiftkv {

struct TinyModelOptions {
  bool swiftkv = false;       // n = 2 of 4 layers, g = 2; else plain
  bool adapter_only = false;  // the SwiftKV tensors and the config alone
  bool chat_template = true;
  bool float16 = false;  // the tensors in F16; else F32
};

// Creates `folder` and returns it. 512 tokens of context.
std::string WriteTinyModel(const std::string& folder, const TinyModelOptions& options = {});

}  // namespace swiftkv

#endif  // SWIFTKV_TESTS_E2E_TINY_MODEL_H_
