// Any bytes as a GGUF file, its metadata as a model's config and as a vocabulary.
#include "checkpoint/gguf.h"
#include "decode_all.h"
#include "model/gguf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto gguf = swiftkv::GgufFile::Parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!gguf) return 0;
  swiftkv::DecodeAll(**gguf);
  (void)swiftkv::ParseGgufConfig(**gguf);
  for (const char* key : {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores"}) {
    (void)(*gguf)->Strings(key);
    (void)(*gguf)->Ints(key);
    (void)(*gguf)->Floats(key);
    (void)(*gguf)->Int(key);
    (void)(*gguf)->Number(key);
    (void)(*gguf)->Bool(key);
    (void)(*gguf)->String(key);
  }
  return 0;
}
