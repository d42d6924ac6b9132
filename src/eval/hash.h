// SHA-256, by which a result names the model and the prompts that it was made with.
#ifndef SWIFTKV_EVAL_HASH_H_
#define SWIFTKV_EVAL_HASH_H_

#include <string>
#include <string_view>

#include "base/status.h"

namespace swiftkv {

// Lower-case hexadecimal digits.
std::string Sha256(std::string_view bytes);

// Of a model: a .gguf file, or a folder's config, tokenizer, weights (.json and .safetensors) and chat_template.jinja,
// names included. A file's is its plain checksum.
// Errors: kNotFound, kIo.
Result<std::string> HashModel(const std::string& path);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_HASH_H_
