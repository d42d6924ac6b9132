// What loading a model costs in memory. A program of its own, so that no other test's memory is in the way.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <numeric>
#include <random>
#include <string>

#include "base/parallel.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_files.h"
#include "model/tiny_model.h"
#include "model/weights.h"

namespace swiftkv {
namespace {

// 27 million weights.
ModelConfig LargeConfig() {
  ModelConfig config = TinyConfig();
  config.vocab_size = 16384;
  config.hidden_size = 512;
  config.intermediate_size = 1536;
  config.num_attention_heads = 8;
  config.head_dim = 64;
  return config;
}

int64_t Elements(const BaseTensor& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
}

// The tensors of `config` in float32.
Status WriteRandomTensors(const ModelConfig& config, const std::string& folder) {
  std::vector<TensorToWrite> tensors;
  for (const BaseTensor& tensor : BaseTensors(config)) tensors.push_back({tensor.name, tensor.shape});
  SWIFTKV_ASSIGN_OR_RETURN(SafetensorsWriter writer,
                           SafetensorsWriter::Create(folder, std::move(tensors), {.dtype = DType::kF32}));
  std::mt19937 random(1);
  for (const BaseTensor& tensor : BaseTensors(config)) {
    std::vector<float> values(static_cast<size_t>(Elements(tensor)));
    for (float& value : values) value = static_cast<float>(random()) * 0x1p-32f;
    SWIFTKV_RETURN_IF_ERROR(writer.Append(values));
  }
  return writer.Finish();
}

// The most memory that this process has had since ForgetPeak.
int64_t PeakBytes() {
  constexpr std::string_view kName = "VmHWM:";
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(kName)) return std::stoll(line.substr(kName.size())) << 10;
  }
  return 0;
}
bool ForgetPeak() { return static_cast<bool>(std::ofstream("/proc/self/clear_refs") << 5 << std::flush); }

TEST(LoadMemoryTest, PeakIsLittleMoreThanThePackedWeights) {
  SetThreads(2);  // each packs some MB at a time
  const ModelConfig config = LargeConfig();
  const TemporaryFolder folder;
  const Status written = WriteRandomTensors(config, folder.path());
  ASSERT_TRUE(written) << written.error().message;
  double elements = 0;
  for (const BaseTensor& tensor : BaseTensors(config)) {
    if (tensor.shape.size() == 2) elements += static_cast<double>(Elements(tensor));
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(Name(dtype));
    const auto source = OpenSafetensors(folder.path());
    ASSERT_TRUE(source) << source.error().message;
    if (!ForgetPeak()) GTEST_SKIP() << "/proc/self/clear_refs cannot be written here";
    const int64_t before = PeakBytes();
    const auto weights = LoadWeights(config, **source, nullptr, {.dtype = dtype});
    const auto grown = static_cast<double>(PeakBytes() - before);
    ASSERT_TRUE(weights) << weights.error().message;
    const double packed = BytesPerWeight(*weights) * elements;
    EXPECT_GT(packed, 50e6);
    EXPECT_LE(grown, 1.15 * packed);
    EXPECT_GE(grown, 0.9 * packed) << "what was measured?";
  }
}

}  // namespace
}  // namespace swiftkv
