// Any text as config.json of a model and of an adapter, as generation_config.json and as a shard index.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "checkpoint/json_file.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)swiftkv::ParseSafetensorsIndex(text, "fuzz");
  const auto json = swiftkv::ParseJsonObject(text, "fuzz");
  if (!json) return 0;
  (void)json->dump();
  auto config = swiftkv::ParseHfConfig(*json, "fuzz");
  swiftkv::ModelConfig base;
  base.num_hidden_layers = 32;
  base.num_key_value_layers = 32;
  (void)swiftkv::MergeAdapterConfig(*json, "fuzz", config && !config->is_swiftkv() ? &*config : &base);
  (void)swiftkv::MergeGenerationConfig(*json, "fuzz", &base);
  return 0;
}
