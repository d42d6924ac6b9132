#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "checkpoint/test_files.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

// A file with one F32 vector; `name` must need no escapes.
std::string OneVector(const std::string& name, const std::vector<float>& values) {
  const std::string header = fmt::format(R"({{"{}":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}})", name,
                                         values.size(), 4 * values.size());
  return SafetensorsBytes(header, {reinterpret_cast<const char*>(values.data()), 4 * values.size()});
}

std::string ParseMessage(const std::string& bytes) {
  return MessageOf(ParseSafetensors(std::as_bytes(std::span(bytes)), "file"));
}

TEST(SafetensorsTest, ReadsAFileThatTheirLibraryWrote) {
  auto source = OpenSafetensors(Golden("tiny.safetensors"));
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ((*source)->names().size(), 12u);
  EXPECT_TRUE(std::is_sorted((*source)->names().begin(), (*source)->names().end()));
  const StoredTensor* q = (*source)->Find("model.layers.0.self_attn.q_proj.weight");
  ASSERT_NE(q, nullptr);
  EXPECT_THAT(q->shape, ElementsAre(64, 32));
  EXPECT_EQ(q->rows(), 64);
  EXPECT_EQ(q->columns(), 32);
  EXPECT_NE(q->file, nullptr);
  EXPECT_EQ((*source)->Find("model.layers.0"), nullptr);
}

TEST(SafetensorsTest, AcceptsScalarsEmptyTensorsMetadataAndPadding) {
  const std::string bytes =
      SafetensorsBytes(R"({"__metadata__":{"format":"pt"},"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                       R"("e":{"dtype":"F32","shape":[0,7],"data_offsets":[8,8]}}       )",
                       "12345678");
  const auto tensors = ParseSafetensors(std::as_bytes(std::span(bytes)), "file");
  ASSERT_TRUE(tensors) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ((*tensors)[0].rows() * (*tensors)[0].columns(), 1);
  EXPECT_EQ((*tensors)[1].data.size(), 0u);
}

TEST(SafetensorsTest, RefusesHeadersThatLie) {
  EXPECT_THAT(ParseMessage(""), HasSubstr("too short"));
  EXPECT_THAT(ParseMessage(Bytes<uint64_t>(UINT64_MAX)), HasSubstr("the limit is"));
  EXPECT_THAT(ParseMessage(Bytes<uint64_t>(100) + "{}"), HasSubstr("the header has 100 bytes, the file only 10"));
  EXPECT_THAT(ParseMessage(SafetensorsBytes("{")), HasSubstr("not valid JSON"));
  EXPECT_THAT(ParseMessage(SafetensorsBytes("{}", "1")), HasSubstr("1 bytes after the last tensor"));
  EXPECT_THAT(ParseMessage(SafetensorsBytes("[]")), HasSubstr("array where none belongs"));
  EXPECT_THAT(ParseMessage(SafetensorsBytes(std::string(1 << 20, '['))), HasSubstr("array where none belongs"));
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "{\"a\":";
  EXPECT_THAT(ParseMessage(SafetensorsBytes(deep)), HasSubstr("unknown field"));
}

TEST(SafetensorsTest, RefusesEntriesThatLie) {
  const auto message = [](const std::string& entry) {
    return ParseMessage(SafetensorsBytes(R"({"t":)" + entry + "}", "12345678"));
  };
  EXPECT_EQ(message(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "no error");
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[1],"data_offsets":[0,8]})"), HasSubstr("its shape needs 4"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[2],"data_offsets":[0,16]})"), HasSubstr("the file has 8"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"), HasSubstr("expected 0"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"), HasSubstr("4 bytes after the last"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[1],"data_offsets":[8,4]})"), HasSubstr("begins at byte 8"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[0],"data_offsets":[0,-1]})"), HasSubstr("negative"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[1152921504606846976,1152921504606846976],"data_offsets":[0,8]})"),
              HasSubstr("impossible shape"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[0,1152921504606846976,1152921504606846976],"data_offsets":[0,0]})"),
              HasSubstr("impossible shape"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]})"),
              HasSubstr("impossible shape"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"), HasSubstr("2^63"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[2.5],"data_offsets":[0,8]})"), HasSubstr("no whole number"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})"),
              HasSubstr("more than 8 dimensions"));
  EXPECT_THAT(message(R"({"dtype":"F99","shape":[2],"data_offsets":[0,8]})"), HasSubstr("unsupported dtype F99"));
  EXPECT_THAT(message(R"({"dtype":7,"shape":[2],"data_offsets":[0,8]})"), HasSubstr("number where none belongs"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[2]})"), HasSubstr("lacks"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), HasSubstr("no pair"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"), HasSubstr("no pair"));
  EXPECT_THAT(message(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), HasSubstr("twice"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1})"), HasSubstr("unknown field more"));
  EXPECT_THAT(message(R"({"dtype":"F32","shape":{},"data_offsets":[0,8]})"), HasSubstr("object where none belongs"));
  EXPECT_THAT(message("null"), HasSubstr("null"));
}

TEST(SafetensorsTest, RefusesOverlapsHolesAndDuplicates) {
  EXPECT_THAT(ParseMessage(SafetensorsBytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                            R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                                            "123456789abc")),
              HasSubstr("must not overlap"));
  TemporaryFolder folder;
  const std::string twice =
      folder.Write("twice.safetensors", SafetensorsBytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                                         R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                                         "12"));
  EXPECT_THAT(MessageOf(OpenSafetensors(twice)), HasSubstr("the tensor a occurs twice"));
}

TEST(SafetensorsTest, AFileThatIsCutShortIsASentence) {
  TemporaryFolder folder;
  const std::string data(1 << 16, 'x');
  const std::string header = R"({"a":{"dtype":"BF16","shape":[32768],"data_offsets":[0,65536]}})";
  const std::string path = folder.Write("model.safetensors", SafetensorsBytes(header, data));
  const auto source = OpenSafetensors(path);
  ASSERT_TRUE(source) << source.error().message;
  std::filesystem::resize_file(path, 4096);
  std::vector<float> values(1 << 15);
  const Status status = DecodeRows(*(*source)->Find("a"), 0, 1, values.data());
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_THAT(status.error().message, HasSubstr("model.safetensors: cannot be read to its end"));
}

TEST(SafetensorsFolderTest, ReadsASingleFileOrShards) {
  TemporaryFolder folder;
  EXPECT_THAT(MessageOf(OpenSafetensors(folder.path())), HasSubstr("there is neither model.safetensors nor"));
  folder.Write("model-00001-of-00002.safetensors", OneVector("a", {1, 2}));
  folder.Write("model-00002-of-00002.safetensors", OneVector("b", {3}));
  folder.Write("model.safetensors.index.json",
               R"({"metadata":{"total_size":12,"more":[{"deep":null}]},"weight_map":{)"
               R"("a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})");
  auto source = OpenSafetensors(folder.path());
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT((*source)->names(), ElementsAre("a", "b"));
  EXPECT_THAT(Values(**source, "b"), ElementsAre(3));
  folder.Write("model.safetensors", OneVector("c", {4}));
  source = OpenSafetensors(folder.path());
  ASSERT_TRUE(source);
  EXPECT_THAT((*source)->names(), ElementsAre("c"));
}

TEST(SafetensorsFolderTest, RefusesAnIndexThatLies) {
  TemporaryFolder folder;
  folder.Write("one.safetensors", OneVector("a", {1, 2}));
  folder.Write("two.safetensors", SafetensorsBytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                                   R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                                   "12"));
  fs::create_directory(folder.path() + "/folder.safetensors");
  ASSERT_EQ(mkfifo((folder.path() + "/fifo.safetensors").c_str(), 0600), 0);
  const auto message = [&](const std::string& index) {
    folder.Write("model.safetensors.index.json", index);
    return MessageOf(OpenSafetensors(folder.path()));
  };
  EXPECT_THAT(message("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("{}"), HasSubstr("weight_map is missing"));
  EXPECT_THAT(message(R"({"weight_map":["a"]})"), HasSubstr("must map tensor names"));
  EXPECT_THAT(message(R"({"weight_map":{"a":1}})"), HasSubstr("must map tensor names"));
  EXPECT_THAT(message(R"({"weight_map":{"a":{"a":"one.safetensors"}}})"), HasSubstr("must map tensor names"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})"),
              HasSubstr("names the tensor"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"missing.safetensors"}})"), HasSubstr("no file missing.safetensors"));
  EXPECT_THAT(message(R"({"weight_map":{"b":"one.safetensors"}})"), HasSubstr("does not hold the tensor b"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})"), HasSubstr("a occurs twice"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"folder.safetensors"}})"), HasSubstr("not a regular file"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"fifo.safetensors"}})"), HasSubstr("not a regular file"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"model.safetensors.index.json"}})"), HasSubstr("safetensors"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"../one.safetensors"}})"), HasSubstr("no plain file name"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"/etc/passwd"}})"), HasSubstr("no plain file name"));
  EXPECT_THAT(message(R"({"weight_map":{"a":".."}})"), HasSubstr("no plain file name"));
  EXPECT_THAT(message(R"({"weight_map":{"a":""}})"), HasSubstr("no plain file name"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"one.safetensors\u0000"}})"), HasSubstr("no plain file name"));
}

TEST(SafetensorsFolderTest, FollowsLinksOnlyWithinTheModel) {
  TemporaryFolder cache;
  const std::string outside = cache.Write("outside.safetensors", OneVector("a", {1}));
  const std::string snapshot = cache.path() + "/models--org--name/snapshots/abc";
  cache.Write("models--org--name/blobs/123", OneVector("a", {2}));
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/123", snapshot + "/model.safetensors");
  auto source = OpenSafetensors(snapshot);
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT(Values(**source, "a"), ElementsAre(2));

  fs::remove(snapshot + "/model.safetensors");
  fs::create_symlink(outside, snapshot + "/model.safetensors");
  EXPECT_THAT(MessageOf(OpenSafetensors(snapshot)), HasSubstr("leads out of the folder"));

  const std::string plain = cache.path() + "/plain";
  fs::create_directory(plain);
  fs::create_symlink("../outside.safetensors", plain + "/model.safetensors");
  EXPECT_THAT(MessageOf(OpenSafetensors(plain)), HasSubstr("leads out of the folder"));
  fs::remove(plain + "/model.safetensors");
  fs::create_symlink("model.safetensors", plain + "/model.safetensors");  // a cycle
  EXPECT_THAT(MessageOf(OpenSafetensors(plain)), HasSubstr("cannot follow"));
}

TEST(SafetensorsFolderTest, GivesF8WeightsTheirScales) {
  // 0x38 is 1.0, 0x40 is 2.0.
  const auto file = [](const std::string& scale_entry, const std::string& scale_data) {
    return SafetensorsBytes(R"({"w":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[0,4]},)" + scale_entry + "}",
                            "\x38\x40\x38\x40" + scale_data);
  };
  TemporaryFolder folder;
  const auto values = [&](const std::string& bytes) {
    auto source = OpenSafetensors(folder.Write("model.safetensors", bytes));
    EXPECT_TRUE(source) << source.error().message;
    return source ? Values(**source, "w") : std::vector<float>();
  };
  const std::string scales = Bytes(3.0f) + Bytes(5.0f);
  EXPECT_THAT(values(file(R"("w_scale":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]})", scales)),
              ElementsAre(3, 6, 5, 10));
  EXPECT_THAT(values(file(R"("w_scale":{"dtype":"BF16","shape":[],"data_offsets":[4,6]})", "\x40\x40")),
              ElementsAre(3, 6, 3, 6));
  EXPECT_THAT(values(file(R"("x":{"dtype":"U8","shape":[1],"data_offsets":[4,5]})", "1")), ElementsAre(1, 2, 1, 2));

  const auto message = [&](const std::string& entry, const std::string& data) {
    return MessageOf(OpenSafetensors(folder.Write("model.safetensors", file(entry, data))));
  };
  EXPECT_THAT(message(R"("w_scale":{"dtype":"F32","shape":[3],"data_offsets":[4,16]})", scales + scales.substr(4)),
              HasSubstr("one for each of the 2 rows"));
  EXPECT_THAT(message(R"("w_scale":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]})", scales),
              HasSubstr("one for each of the 2 rows"));  // by column
  EXPECT_THAT(message(R"("w_scale":{"dtype":"I32","shape":[2],"data_offsets":[4,12]})", scales), HasSubstr("I32"));
  EXPECT_THAT(message(R"("w_scale_inv":{"dtype":"F32","shape":[2],"data_offsets":[4,12]})", scales),
              HasSubstr("block-wise"));
}

}  // namespace
}  // namespace swiftkv
