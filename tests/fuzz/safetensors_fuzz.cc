// Any bytes as a safetensors file.
#include "checkpoint/safetensors.h"
#include "decode_all.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto tensors = swiftkv::ParseSafetensors(std::as_bytes(std::span(data, size)), "fuzz");
  if (!tensors) return 0;
  const auto source = swiftkv::MakeSafetensorsSource(std::move(*tensors), "fuzz");
  if (source) swiftkv::DecodeAll(**source);
  return 0;
}
