#include "checkpoint/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/gguf_parser.h"
#include "checkpoint/test_files.h"

namespace swiftkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Writes files that lie in every way.
class Builder {
 public:
  Builder& Value(const std::string& key, uint32_t type, const std::string& bytes) {
    values_ += String(key) + Bytes(type) + bytes;
    ++value_count;
    return *this;
  }
  Builder& Architecture(const std::string& name) { return Value("general.architecture", kGgufString, String(name)); }
  Builder& Tensor(const std::string& name, std::vector<uint64_t> dimensions, uint32_t type, uint64_t offset) {
    tensors_ += String(name) + Bytes<uint32_t>(dimensions.size());
    for (const uint64_t size : dimensions) tensors_ += Bytes(size);
    tensors_ += Bytes(type) + Bytes(offset);
    ++tensor_count;
    return *this;
  }
  std::string Build(const std::string& data = "") const {
    std::string bytes = magic + Bytes(version) + Bytes(tensor_count) + Bytes(value_count) + values_ + tensors_;
    bytes.resize((bytes.size() + 31) / 32 * 32);
    return bytes + data;
  }
  static std::string String(const std::string& text) { return Bytes<uint64_t>(text.size()) + text; }

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t tensor_count = 0;
  uint64_t value_count = 0;

 private:
  std::string values_;
  std::string tensors_;
};

std::string ParseMessage(const std::string& bytes) {
  return MessageOf(GgufFile::Parse(std::as_bytes(std::span(bytes)), "file"));
}

TEST(GgufTest, ReadsTheFileThatGgufsOwnWriterWrote) {
  auto gguf = GgufFile::Open(Golden("tiny.gguf"));
  ASSERT_TRUE(gguf) << gguf.error().message;
  auto expected = OpenSafetensors(Golden("tiny.safetensors"));
  ASSERT_TRUE(expected) << expected.error().message;
  // Same names, shapes and values as the Hugging Face checkpoint, quantised and permuted tensors included.
  for (const std::string& name : (*expected)->names()) {
    const StoredTensor* tensor = (*gguf)->Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->shape, (*expected)->Find(name)->shape) << name;
    EXPECT_EQ(Values(**gguf, name), Values(**expected, name)) << name;
  }
  EXPECT_EQ((*gguf)->names().size(), (*expected)->names().size() + 1);
  EXPECT_EQ(Values(**gguf, "rope_freqs.weight").size(), 8u);
  EXPECT_EQ((*gguf)->Find("model.layers.0.self_attn.q_proj.weight")->permuted_heads, 4);
  EXPECT_EQ((*gguf)->Find("model.layers.0.self_attn.k_proj.weight")->permuted_heads, 2);
  EXPECT_EQ((*gguf)->Find("model.layers.0.self_attn.v_proj.weight")->permuted_heads, 0);
}

TEST(GgufTest, ReadsEveryMetadataType) {
  auto opened = GgufFile::Open(Golden("tiny.gguf"));
  ASSERT_TRUE(opened) << opened.error().message;
  const GgufFile& gguf = **opened;
  EXPECT_EQ(gguf.architecture(), "llama");
  EXPECT_EQ(gguf.Int("test.uint8"), 200);
  EXPECT_EQ(gguf.Int("test.int8"), -100);
  EXPECT_EQ(gguf.Int("test.uint16"), 60000);
  EXPECT_EQ(gguf.Int("test.int16"), -30000);
  EXPECT_EQ(gguf.Int("test.int32"), -2000000000);
  EXPECT_EQ(gguf.Int("test.int64"), -(int64_t{1} << 62));
  EXPECT_THAT(MessageOf(gguf.Int("test.uint64")), HasSubstr("below 2^63"));
  EXPECT_EQ(gguf.Number("test.float64"), 0.1);
  EXPECT_EQ(gguf.Number("llama.rope.freq_base"), 500000.0);
  EXPECT_EQ(gguf.Number("test.int8"), -100.0);
  EXPECT_EQ(gguf.Bool("tokenizer.ggml.add_bos_token"), true);
  EXPECT_EQ(gguf.String("tokenizer.chat_template"), "{{ messages }}");
  EXPECT_THAT(*gguf.Strings("tokenizer.ggml.tokens"), ElementsAre("a", "b", "c", "Ġ", "<s>", "</s>"));
  EXPECT_THAT(*gguf.Ints("tokenizer.ggml.token_type"), ElementsAre(1, 1, 1, 1, 3, 3));
  EXPECT_THAT(*gguf.Floats("tokenizer.ggml.scores"), ElementsAre(0, -1.5, -2, -3, 0, 0));

  EXPECT_EQ(gguf.Int("missing").error().code, ErrorCode::kNotFound);
  EXPECT_THAT(MessageOf(gguf.Int("tokenizer.ggml.model")), HasSubstr("tokenizer.ggml.model must be a whole number"));
  EXPECT_THAT(MessageOf(gguf.Int("tokenizer.ggml.tokens")), HasSubstr("must be a single value"));
  EXPECT_THAT(MessageOf(gguf.Strings("test.int8")), HasSubstr("must be an array"));
  EXPECT_THAT(MessageOf(gguf.Ints("tokenizer.ggml.tokens")), HasSubstr("32-bit whole numbers"));
  EXPECT_THAT(MessageOf(gguf.Floats("tokenizer.ggml.tokens")), HasSubstr("array of floats"));
  EXPECT_THAT(MessageOf(gguf.Bool("test.int8")), HasSubstr("true or false"));
}

TEST(GgufTest, EveryTruncationIsASentence) {
  Result<std::shared_ptr<MappedFile>> file = MappedFile::Open(Golden("tiny.gguf"));
  ASSERT_TRUE(file);
  const std::span<const std::byte> bytes = (*file)->bytes();
  for (size_t size = 0; size < bytes.size() - 32; size += size < 4096 ? 1 : 97) {
    // A copy of exactly this size, so that a sanitizer sees any read past its end.
    const std::vector<std::byte> part(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(GgufFile::Parse(part, "file")) << size;
  }
}

TEST(GgufTest, RefusesHeadsThatLie) {
  Builder builder;
  builder.Architecture("llama");
  EXPECT_EQ(ParseMessage(builder.Build()), "no error");
  builder.version = 2;
  EXPECT_EQ(ParseMessage(builder.Build()), "no error");
  for (const uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    builder.version = version;
    EXPECT_THAT(ParseMessage(builder.Build()), HasSubstr("version"));
  }
  builder.version = 3;
  builder.tensor_count = uint64_t{1} << 60;
  EXPECT_THAT(ParseMessage(builder.Build()), HasSubstr("more than the file can hold"));
  builder.tensor_count = 0;
  builder.value_count = UINT64_MAX;
  EXPECT_THAT(ParseMessage(builder.Build()), HasSubstr("more than the file can hold"));
  builder.magic = "GGML";
  EXPECT_THAT(ParseMessage(builder.Build()), HasSubstr("not a GGUF file"));
  EXPECT_THAT(ParseMessage(Builder().Build(std::string(64, '\0'))), HasSubstr("lacks general.architecture"));
}

TEST(GgufTest, RefusesMetadataThatLies) {
  const auto message = [](uint32_t type, const std::string& bytes) {
    return ParseMessage(Builder().Architecture("llama").Value("k", type, bytes).Build());
  };
  EXPECT_THAT(message(13, "12345678"), HasSubstr("k has the type 13"));
  EXPECT_THAT(message(kGgufString, Bytes(UINT64_MAX)), HasSubstr("the file ends"));
  const auto array = [&](uint32_t type, uint64_t count, const std::string& data) {
    return message(kGgufArray, Bytes(type) + Bytes(count) + data);
  };
  EXPECT_EQ(array(kGgufInt16, 2, "1234"), "no error");
  EXPECT_THAT(array(kGgufInt64, uint64_t{1} << 61, ""), HasSubstr("more than the file can hold"));
  EXPECT_THAT(array(kGgufString, uint64_t{1} << 61, ""), HasSubstr("the file ends"));
  EXPECT_THAT(array(kGgufArray, 1, ""), HasSubstr("array of type 9"));
  Builder twice;
  twice.Architecture("llama").Architecture("llama");
  EXPECT_THAT(ParseMessage(twice.Build()), HasSubstr("occurs twice"));
  for (const uint32_t alignment : {0u, 24u, 1u << 21}) {
    Builder builder;
    builder.Architecture("llama").Value("general.alignment", kGgufUint32, Bytes(alignment));
    EXPECT_THAT(ParseMessage(builder.Build()), HasSubstr("general.alignment"));
  }
  EXPECT_THAT(ParseMessage(Builder().Value("general.architecture", kGgufUint8, "1").Build()),
              HasSubstr("general.architecture must be a string"));
}

// Parts after the first have no metadata but these.
TEST(GgufTest, RefusesPartsOfASplitFile) {
  Builder part;
  part.Value("split.no", kGgufUint16, Bytes<uint16_t>(1)).Value("split.count", kGgufUint16, Bytes<uint16_t>(2));
  EXPECT_THAT(ParseMessage(part.Build()), HasSubstr("file: one of the 2 parts of a split GGUF file"));
  Builder whole;
  whole.Architecture("llama").Value("split.count", kGgufUint16, Bytes<uint16_t>(1));
  EXPECT_EQ(ParseMessage(whole.Build()), "no error");
}

TEST(GgufTest, RefusesTensorsThatLie) {
  const std::string data(64, '\0');
  const auto message = [&](std::vector<uint64_t> dimensions, uint32_t type, uint64_t offset) {
    return ParseMessage(Builder().Architecture("llama").Tensor("t", std::move(dimensions), type, offset).Build(data));
  };
  EXPECT_EQ(message({4, 4}, 0, 0), "no error");
  EXPECT_EQ(message({0}, 0, 0), "no error");
  EXPECT_THAT(message({17}, 0, 0), HasSubstr("needs 68 bytes at byte 0 of the data, the file has 64"));
  EXPECT_THAT(message({8}, 0, 64), HasSubstr("the file has 64"));
  EXPECT_THAT(message({8}, 0, UINT64_MAX - 31), HasSubstr("the file has 64"));
  EXPECT_THAT(message({8}, 0, 8), HasSubstr("not aligned to 32"));
  EXPECT_THAT(message({uint64_t{1} << 60, 16}, 0, 0), HasSubstr("impossible shape"));
  EXPECT_THAT(message({UINT64_MAX}, 0, 0), HasSubstr("impossible shape"));
  EXPECT_THAT(message({16, 2}, 2, 0), HasSubstr("impossible shape"));  // rows of half a Q4_0 block
  EXPECT_THAT(message({1, 1, 1, 1, 1}, 0, 0), HasSubstr("5 dimensions"));
  EXPECT_THAT(message({32}, 10, 0), HasSubstr("ggml type 10, which is not supported"));
  EXPECT_THAT(ParseMessage(Builder().Architecture("llama").Tensor("a", {8}, 0, 0).Tensor("a", {8}, 0, 32).Build(data)),
              HasSubstr("a occurs twice"));
  EXPECT_THAT(ParseMessage(Builder().Architecture("llama").Tensor("a", {9}, 0, 0).Tensor("b", {8}, 0, 32).Build(data)),
              HasSubstr("b overlaps"));
}

TEST(GgufTest, RefusesHeadCountsThatDoNotFitTheRows) {
  const auto message = [](uint64_t rows, uint32_t heads) {
    Builder builder;
    builder.Architecture("llama").Value("llama.attention.head_count", kGgufUint32, Bytes(heads));
    builder.Tensor("blk.0.attn_q.weight", {1, rows}, 0, 0);
    return ParseMessage(builder.Build(std::string(64, '\0')));
  };
  EXPECT_EQ(message(8, 4), "no error");
  EXPECT_THAT(message(8, 3), HasSubstr("do not divide"));
  EXPECT_THAT(message(8, 8), HasSubstr("do not divide"));
  EXPECT_THAT(message(8, 0), HasSubstr("do not divide"));
  EXPECT_THAT(message(0, 4), HasSubstr("do not divide"));
  Builder builder;
  EXPECT_THAT(
      ParseMessage(builder.Architecture("llama").Tensor("blk.0.attn_k.bias", {8}, 0, 0).Build(std::string(32, 'x'))),
      HasSubstr("lacks llama.attention.head_count"));
}

TEST(GgufTest, RenamesTensorsToHuggingFaceNames) {
  EXPECT_EQ(HfNameOfGgufTensor("blk.11.ffn_down.weight"), "model.layers.11.mlp.down_proj.weight");
  EXPECT_EQ(HfNameOfGgufTensor("blk.0.attn_q_norm.weight"), "model.layers.0.self_attn.q_norm.weight");
  EXPECT_EQ(HfNameOfGgufTensor("blk.0.attn_v.bias"), "model.layers.0.self_attn.v_proj.bias");
  for (const char* name :
       {"rope_freqs.weight", "blk.0.ffn_gate_exps.weight", "blk.", "blk..", "blk.0", "blk.0.x", ""}) {
    EXPECT_EQ(HfNameOfGgufTensor(name), name);
  }
}

}  // namespace
}  // namespace swiftkv
