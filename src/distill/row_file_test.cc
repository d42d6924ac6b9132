#include "distill/row_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "checkpoint/test_files.h"
#include "distill/permutation.h"

namespace swiftkv {
namespace {

std::vector<std::string> Rows(const RowFile& file) {
  std::vector<std::string> rows;
  for (uint64_t at = 0; const auto row = file.NextRow(&at);) rows.emplace_back(row->text);
  return rows;
}

TEST(RowFileTest, LinesOfJson) {
  const TemporaryFolder folder;
  const auto file = RowFile::Open(folder.Write("a.jsonl", "\n{1}\r\n \t\n{2}\n\n  {3} "));
  ASSERT_TRUE(file);
  EXPECT_THAT(Rows(*file), testing::ElementsAre("{1}", "{2}", "  {3}"));
  uint64_t at = 8;
  EXPECT_EQ(file->Place(file->NextRow(&at)->begin), file->path() + ":4");
}

TEST(RowFileTest, PlainTextIsCutAtBlankLines) {
  std::string text;
  std::vector<std::string> expected;
  for (int i = 0; i < 5; ++i) {
    expected.push_back(std::string(kPlainDocumentBytes - 100, 'a') + "\nb\n\n" + std::string(200, 'c'));
    text += expected.back() + "\n \r\n";
  }
  const TemporaryFolder folder;
  EXPECT_EQ(Rows(*RowFile::Open(folder.Write("a.txt", text))), expected);
}

TEST(RowFileTest, PlainTextWithoutBlankLinesIsCutAtLinesOrCharacters) {
  const std::string lines = std::string(kPlainDocumentBytes - 10, 'a') + "\n" + std::string(20, 'b') + "\n" +
                            std::string(3 * kPlainDocumentBytes, 'c');
  EXPECT_EQ(PlainDocumentEnd(lines), kPlainDocumentBytes + 12);
  std::string characters = "x";
  while (characters.size() < 3 * kPlainDocumentBytes) characters += "é";
  EXPECT_EQ(PlainDocumentEnd(characters), 2 * kPlainDocumentBytes - 1);
  const std::string broken(3 * kPlainDocumentBytes, '\x80');
  EXPECT_EQ(PlainDocumentEnd(broken), kPlainDocumentBytes);
  EXPECT_EQ(PlainDocumentEnd("short"), 5u);
}

// Held-out rows stay the same, and tools/held_out_rows.py knows them.
TEST(RowFileTest, HashesStay) { EXPECT_EQ(HashRow("a row of text"), 0x9f03ff024b0d345cU); }

TEST(RowFileTest, HashesDiffer) {
  std::set<uint64_t> hashes;
  for (size_t length = 0; length < 40; ++length) {
    hashes.insert(HashRow(std::string(length, '\0')));
    hashes.insert(HashRow(std::string(length, 'a')));
    hashes.insert(HashRow(std::string(length, 'a') + "b"));
  }
  EXPECT_EQ(hashes.size(), 119u);  // nothing at all is there twice
}

TEST(PermutationTest, IsOne) {
  for (const uint64_t size : {1, 2, 3, 4, 5, 16, 17, 1000, 4097}) {
    for (const uint64_t key : {0, 1}) {
      const Permutation order(size, key);
      std::set<uint64_t> seen;
      for (uint64_t i = 0; i < size; ++i) {
        ASSERT_LT(order(i), size);
        seen.insert(order(i));
      }
      EXPECT_EQ(seen.size(), size) << size;
    }
  }
}

TEST(PermutationTest, KeysGiveOtherOrders) {
  constexpr uint64_t kSize = 10000;
  int same_place = 0;
  int same_neighbour = 0;
  for (uint64_t i = 0; i < kSize; ++i) {
    same_place += Permutation(kSize, 1)(i) == Permutation(kSize, 2)(i) ? 1 : 0;
    if (i > 0 && Permutation(kSize, 1)(i) == Permutation(kSize, 1)(i - 1) + 1) ++same_neighbour;
  }
  EXPECT_LT(same_place, 10);
  EXPECT_LT(same_neighbour, 10);
}

}  // namespace
}  // namespace swiftkv
