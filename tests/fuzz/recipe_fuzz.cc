// Any text as a recipe. One that reads is written and must read back the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "distill/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::string> warnings;
  const auto recipe =
      swiftkv::ParseRecipe(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz", &warnings);
  if (!recipe) return 0;
  const auto again = swiftkv::ParseRecipe(swiftkv::ToYaml(*recipe), "again", &warnings);
  if (!again || *again != *recipe) std::abort();
  return 0;
}
