#include "distill/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "distill/test_corpus.h"

namespace swiftkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<std::string> Numbered(const std::string& prefix, int count) {
  std::vector<std::string> texts;
  for (int i = 0; i < count; ++i) texts.push_back(fmt::format("{} {} and so on", prefix, i));
  return texts;
}

class DatasetTest : public testing::Test {
 protected:
  std::unique_ptr<Dataset> Open(const DataRecipe& recipe, const DatasetOptions& options) {
    auto dataset = Dataset::Open(recipe, options, corpus_.text());
    EXPECT_TRUE(dataset.has_value()) << (dataset ? "" : dataset.error().message);
    return dataset ? std::move(*dataset) : nullptr;
  }

  static std::vector<PackedSequence> All(Dataset* dataset) {
    std::vector<PackedSequence> rows;
    while (true) {
      auto row = dataset->Next();
      EXPECT_TRUE(row.has_value()) << (row ? "" : row.error().message);
      if (!row || !*row) return rows;
      rows.push_back(std::move(**row));
    }
  }

  // Each document's text, with braces around what counts: the tokens that in_loss, shifted by one, stands for.
  std::vector<std::string> Documents(const PackedSequence& row) const {
    std::vector<std::string> documents;
    for (size_t d = 0; d < row.document_begins.size(); ++d) {
      const auto begin = static_cast<size_t>(row.document_begins[d]);
      const size_t end =
          d + 1 < row.document_begins.size() ? static_cast<size_t>(row.document_begins[d + 1]) : row.token_ids.size();
      std::string text;
      for (size_t t = begin; t < end; ++t) {
        const bool now = t > begin && row.in_loss[t - 1] != 0;
        const bool before = t > begin + 1 && row.in_loss[t - 2] != 0;
        if (now && !before) text += "{";
        if (!now && before) text += "}";
        text += corpus_.Decode({row.token_ids[t]});
      }
      if (end >= begin + 2 && row.in_loss[end - 2] != 0) text += "}";
      documents.push_back(text);
    }
    return documents;
  }

  std::vector<std::string> AllDocuments(Dataset* dataset) const {
    std::vector<std::string> documents;
    for (const PackedSequence& row : All(dataset)) {
      for (std::string& document : Documents(row)) documents.push_back(std::move(document));
    }
    return documents;
  }

  static std::vector<PackedSequence> HeldOut(const Dataset& dataset, int64_t source, int64_t tokens) {
    auto rows = dataset.HeldOut(source, tokens);
    EXPECT_TRUE(rows.has_value()) << (rows ? "" : rows.error().message);
    return rows ? std::move(*rows) : std::vector<PackedSequence>();
  }

  TestCorpus corpus_;
};

TEST_F(DatasetTest, OnlyTheAssistantsWordsCount) {
  const std::string chats = corpus_.WriteChats("c.jsonl", {{"Hi", "Yes", "And?", "No"}});
  const auto dataset = Open({.sources = {{.path = chats}}}, {.epochs = 1});
  const auto rows = All(dataset.get());
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_THAT(Documents(rows[0]),
              ElementsAre("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{Yes<|im_end|>}\n"
                          "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n{No<|im_end|>}\n"));
  EXPECT_EQ(rows[0].in_loss.back(), 0);
}

TEST_F(DatasetTest, InATextAllTokensCountAndNoneAcrossDocuments) {
  const std::string texts = corpus_.WriteTexts("t.jsonl", {"One two", "Three"});
  const auto dataset = Open({.sources = {{.path = texts}}}, {.epochs = 1});
  const auto rows = All(dataset.get());
  ASSERT_THAT(rows, SizeIs(1));
  const PackedSequence& row = rows[0];
  ASSERT_THAT(row.document_begins, SizeIs(2));
  for (size_t t = 0; t < row.in_loss.size(); ++t) {
    const bool last = t + 1 == row.in_loss.size() || static_cast<int64_t>(t) + 1 == row.document_begins[1];
    EXPECT_EQ(row.in_loss[t], last ? 0 : 1) << t;
  }
}

TEST_F(DatasetTest, WithoutMaskEverythingCounts) {
  const std::string chats = corpus_.WriteChats("c.jsonl", {{"Hi", "Yes"}, {"Ho", "No"}, {"unanswered"}});
  const auto dataset = Open({.sources = {{.path = chats}}, .mask_inputs = false}, {.epochs = 1});
  const auto rows = All(dataset.get());
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_THAT(rows[0].document_begins, SizeIs(3));
  EXPECT_THAT(rows[0].in_loss, testing::Each(1));
}

TEST_F(DatasetTest, WhatCountsForNothingIsSkipped) {
  const std::string chats = corpus_.WriteChats("c.jsonl", {{"unanswered"}, {"Ho", "No"}});
  const auto dataset = Open({.sources = {{.path = chats}}}, {.epochs = 1});
  EXPECT_THAT(AllDocuments(dataset.get()), SizeIs(1));
  EXPECT_EQ(dataset->skipped_rows(), 1);
  EXPECT_THAT(dataset->warnings(),
              ElementsAre(HasSubstr("c.jsonl:1: nothing in it counts in the loss; such rows are skipped")));
}

TEST_F(DatasetTest, EveryRowComesOnceAnEpochInAnOrderOfItsOwn) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 100));
  const std::string b = corpus_.WriteTexts("b.jsonl", Numbered("b", 25));
  const DataRecipe recipe{.sources = {{.path = a}, {.path = b}}, .pack_samples = false};
  const auto dataset = Open(recipe, {.seed = 1, .epochs = 2});
  const std::vector<std::string> documents = AllDocuments(dataset.get());
  ASSERT_THAT(documents, SizeIs(250));
  const std::vector<std::string> first(documents.begin(), documents.begin() + 125);
  const std::vector<std::string> second(documents.begin() + 125, documents.end());
  EXPECT_THAT(std::set<std::string>(first.begin(), first.end()), SizeIs(125));
  EXPECT_THAT(second, testing::UnorderedElementsAreArray(first));
  EXPECT_NE(second, first);
  // The smaller source is spread over the epoch.
  for (int fifth = 0; fifth < 5; ++fifth) {
    const auto begin = first.begin() + 25 * fifth;
    EXPECT_NEAR(std::count_if(begin, begin + 25, [](const std::string& text) { return text[0] == 'b'; }), 5, 1);
  }
  EXPECT_EQ(AllDocuments(Open(recipe, {.seed = 1, .epochs = 2}).get()), documents);
  EXPECT_NE(AllDocuments(Open(recipe, {.seed = 2, .epochs = 2}).get()), documents);
}

TEST_F(DatasetTest, WeightsAreSharesOfTheTokens) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 10));
  const std::string b = corpus_.WriteTexts("b.jsonl", Numbered("b is longer than the other, much longer", 400));
  const auto dataset = Open(
      {.sources = {{.path = a, .weight = 3}, {.path = b, .weight = 1}}, .max_length = 64, .pack_samples = false}, {});
  int64_t tokens[2] = {0, 0};
  for (int i = 0; i < 500; ++i) {
    const auto row = dataset->Next();
    ASSERT_TRUE(row && *row);
    tokens[Documents(**row)[0][0] == 'a' ? 0 : 1] += (*row)->tokens();
  }
  EXPECT_NEAR(static_cast<double>(tokens[0]) / static_cast<double>(tokens[1]), 3, 0.1);
}

TEST_F(DatasetTest, ASourceWithoutAWeightHasTheMeanOfTheOthers) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 100));
  const std::string b = corpus_.WriteTexts("b.jsonl", Numbered("b", 100));
  const std::string c = corpus_.WriteTexts("c.jsonl", Numbered("c", 100));
  const auto dataset = Open(
      {.sources = {{.path = a, .weight = 0.1}, {.path = b, .weight = 0.3}, {.path = c}}, .pack_samples = false}, {});
  std::map<char, int> times;
  for (int i = 0; i < 600; ++i) {
    const auto row = dataset->Next();
    ASSERT_TRUE(row && *row);
    ++times[Documents(**row)[0][0]];
  }
  EXPECT_NEAR(times['a'], 100, 3);
  EXPECT_NEAR(times['b'], 300, 3);
  EXPECT_NEAR(times['c'], 200, 3);
}

TEST_F(DatasetTest, AWeightedEpochGoesThroughEverySource) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 10));
  const std::string b = corpus_.WriteTexts("b.jsonl", Numbered("b", 40));
  const auto dataset =
      Open({.sources = {{.path = a, .weight = 1}, {.path = b, .weight = 1}}, .pack_samples = false}, {.epochs = 1});
  std::map<std::string, int> times;
  for (const std::string& document : AllDocuments(dataset.get())) ++times[document];
  EXPECT_THAT(times, SizeIs(50));
  for (const auto& [document, count] : times) EXPECT_NEAR(count, document[0] == 'b' ? 1 : 4, 1) << document;
}

TEST_F(DatasetTest, CountLimitsTheRows) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 100));
  const DataRecipe recipe{.sources = {{.path = a, .count = 7}}, .pack_samples = false};
  const auto documents = AllDocuments(Open(recipe, {.seed = 1, .epochs = 3}).get());
  EXPECT_THAT(documents, SizeIs(21));
  EXPECT_THAT(std::set<std::string>(documents.begin(), documents.end()), SizeIs(7));
  EXPECT_NE(AllDocuments(Open(recipe, {.seed = 2, .epochs = 1}).get()),
            AllDocuments(Open(recipe, {.seed = 1, .epochs = 1}).get()));
}

TEST_F(DatasetTest, RowsArePackedWholeAndLongOnesSplit) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 50));
  const std::string b = corpus_.WriteTexts("b.jsonl", {std::string(300, 'x') + std::string(300, 'y')});
  const auto dataset = Open({.sources = {{.path = a}, {.path = b}}, .max_length = 50}, {.epochs = 1});
  int64_t tokens = 0;
  std::string joined;
  std::set<std::string> whole;
  for (const PackedSequence& row : All(dataset.get())) {
    ASSERT_LE(row.tokens(), 50);
    ASSERT_EQ(row.token_ids.size(), row.in_loss.size());
    ASSERT_EQ(row.document_begins[0], 0);
    EXPECT_TRUE(std::is_sorted(row.document_begins.begin(), row.document_begins.end()));
    tokens += row.tokens();
    for (const std::string& document : Documents(row)) {
      std::string plain = document;
      plain.erase(std::remove_if(plain.begin(), plain.end(), [](char c) { return c == '{' || c == '}'; }), plain.end());
      if (plain[0] == 'a') whole.insert(plain);
      if (plain[0] != 'a') joined += plain;
    }
  }
  EXPECT_EQ(joined, std::string(300, 'x') + std::string(300, 'y'));
  const auto expected = Numbered("a", 50);
  EXPECT_EQ(whole, std::set<std::string>(expected.begin(), expected.end()));
}

TEST_F(DatasetTest, AlwaysMaxLengthFillsEveryRow) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 200));
  DataRecipe recipe{.sources = {{.path = a}}, .max_length = 40, .always_max_length = true};
  auto rows = All(Open(recipe, {.epochs = 1}).get());
  ASSERT_GT(rows.size(), 10u);
  // One token that is left over is no document.
  for (size_t i = 0; i + 1 < rows.size(); ++i) EXPECT_GE(rows[i].tokens(), 39) << i;
  const size_t all = rows.size();
  ASSERT_LT(rows.back().tokens(), 39);
  recipe.drop_last = true;
  rows = All(Open(recipe, {.epochs = 1}).get());
  EXPECT_EQ(rows.size(), all - 1);
}

TEST_F(DatasetTest, FusedRowsAreOneDocument) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 3000));
  const auto rows =
      All(Open({.sources = {{.path = a}}, .max_length = 40, .fuse_positions_prob = 0.3}, {.epochs = 1}).get());
  const auto fused = std::count_if(rows.begin(), rows.end(),
                                   [](const PackedSequence& row) { return row.document_begins.size() == 1; });
  EXPECT_NEAR(static_cast<double>(fused) / static_cast<double>(rows.size()), 0.3, 0.05);
  for (const PackedSequence& row : rows) {
    if (row.document_begins.size() > 1) continue;
    EXPECT_EQ(std::count(row.in_loss.begin(), row.in_loss.end(), 0), 1);
  }
}

TEST_F(DatasetTest, HeldOutRowsAreNeverTrainedOn) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 500));
  std::set<std::string> held_out_once;
  for (const int64_t seed : {1, 2}) {
    for (const int64_t count : {0, 100}) {
      const auto dataset = Open({.sources = {{.path = a, .count = count, .held_out = 0.1}}, .pack_samples = false},
                                {.seed = seed, .epochs = 1});
      ASSERT_NEAR(static_cast<double>(dataset->sources()[0].held_out_rows), 50, 20);
      std::set<std::string> held_out;
      for (const PackedSequence& row : HeldOut(*dataset, 0, 1 << 20)) held_out.insert(Documents(row)[0]);
      EXPECT_EQ(static_cast<int64_t>(held_out.size()), dataset->sources()[0].held_out_rows);
      const auto trained = AllDocuments(dataset.get());
      EXPECT_EQ(static_cast<int64_t>(trained.size()), dataset->sources()[0].train_rows);
      EXPECT_EQ(trained.size(), count == 0 ? 500 - held_out.size() : 100);
      for (const std::string& document : trained) EXPECT_EQ(held_out.count(document), 0u);
      if (held_out_once.empty()) held_out_once = held_out;
      EXPECT_EQ(held_out, held_out_once);
    }
  }
}

TEST_F(DatasetTest, SourcesOfOneNameAreToldApart) {
  const std::string root = corpus_.folder.path();
  std::filesystem::create_directories(root + "/a");
  std::filesystem::create_directories(root + "/b");
  const auto dataset =
      Open({.sources = {{.path = corpus_.WriteTexts("a/t.jsonl", Numbered("x", 5)), .role = SourceRole::kEval},
                        {.path = root + "/p.jsonl", .role = SourceRole::kPrompts},
                        {.path = corpus_.WriteTexts("b/t.jsonl", Numbered("y", 5))},
                        {.path = corpus_.WriteTexts("u.jsonl", Numbered("z", 5))}}},
           {.epochs = 1});
  std::vector<std::string> names;
  for (const DatasetSource& source : dataset->sources()) names.push_back(source.name);
  EXPECT_THAT(names, ElementsAre("b/t.jsonl", "u.jsonl", "a/t.jsonl"));
}

TEST_F(DatasetTest, HeldOutByCountAndInOtherSources) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("x", 60));
  const std::string b = corpus_.WriteTexts("b.jsonl", Numbered("x", 80));  // a's rows and 20 more
  const std::string c = corpus_.WriteTexts("c.jsonl", Numbered("x", 5));   // only measured
  const auto dataset =
      Open({.sources = {{.path = a, .held_out = 20}, {.path = b}, {.path = c, .role = SourceRole::kEval}},
            .pack_samples = false},
           {.epochs = 1});
  ASSERT_THAT(dataset->sources(), SizeIs(3));
  EXPECT_EQ(dataset->sources()[0].held_out_rows, 20);
  EXPECT_EQ(dataset->sources()[1].held_out_rows, 0);
  EXPECT_EQ(dataset->sources()[2].held_out_rows, 5);
  EXPECT_EQ(dataset->sources()[2].train_rows, 0);
  std::set<std::string> held_out;
  for (const int64_t source : {0, 2}) {
    for (const PackedSequence& row : HeldOut(*dataset, source, 1 << 20)) held_out.insert(Documents(row)[0]);
  }
  EXPECT_EQ(dataset->sources()[0].train_rows + static_cast<int64_t>(held_out.size()), 60);
  for (const std::string& document : AllDocuments(dataset.get())) EXPECT_EQ(held_out.count(document), 0u);
  EXPECT_THAT(dataset->HeldOut(1, 100).error().message, HasSubstr("no held-out row of 0 can be used"));
  EXPECT_THAT(dataset->HeldOut(3, 100).error().message, HasSubstr("there is no source 3"));
}

TEST_F(DatasetTest, HeldOutTextHasAtMostSoManyTokens) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 200));
  const auto dataset = Open({.sources = {{.path = a, .held_out = 100}}, .max_length = 64}, {});
  for (const int64_t limit : {2, 10, 63, 64, 65, 300}) {
    int64_t tokens = 0;
    for (const PackedSequence& row : HeldOut(*dataset, 0, limit)) {
      tokens += row.tokens();
      EXPECT_EQ(row.in_loss.back(), 0);
      EXPECT_LT(row.document_begins.back(), row.tokens());
    }
    EXPECT_LE(tokens, limit);
    EXPECT_GE(tokens, limit - 20);
  }
  EXPECT_EQ(HeldOut(*dataset, 0, 300), HeldOut(*dataset, 0, 300));
}

TEST_F(DatasetTest, ResumedRowsAreThoseOfAnUninterruptedRun) {
  std::vector<std::string> plain = Numbered("a", 30);
  plain.push_back(std::string(400, 'z'));
  const std::string a = corpus_.WriteTexts("a.jsonl", plain);
  const std::string b = corpus_.WriteChats("b.jsonl", {{"Hi", "Yes"}, {"not answered"}, {"Ho", "No", "Hm", "Oh"}});
  for (const bool always : {false, true}) {
    for (const double weight : {0.0, 2.0}) {
      const DataRecipe recipe{.sources = {{.path = a, .weight = weight}, {.path = b}},
                              .max_length = 48,
                              .always_max_length = always,
                              .fuse_positions_prob = 0.3};
      const DatasetOptions options{.seed = 3, .epochs = 3};
      const auto whole = Open(recipe, options);
      std::vector<DatasetState> states = {whole->state()};
      std::vector<PackedSequence> rows;
      while (auto row = *whole->Next()) {
        rows.push_back(std::move(*row));
        states.push_back(whole->state());
      }
      ASSERT_GT(rows.size(), 20u);
      for (size_t at = 0; at < states.size(); ++at) {
        const auto state = ParseDatasetState(ToJson(states[at]), "state");
        ASSERT_TRUE(state.has_value()) << state.error().message;
        ASSERT_EQ(*state, states[at]);
        const auto resumed = Open(recipe, options);
        const auto status = resumed->Restore(*state);
        ASSERT_TRUE(status.has_value()) << status.error().message;
        const std::vector<PackedSequence> rest = All(resumed.get());
        ASSERT_EQ(rest.size(), rows.size() - at);
        for (size_t i = 0; i < rest.size(); ++i) ASSERT_TRUE(rest[i] == rows[at + i]) << at << " " << i;
        EXPECT_EQ(resumed->state(), whole->state());
      }
    }
  }
}

TEST_F(DatasetTest, CountingLeavesTheRunWhereItIs) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 100));
  const DataRecipe recipe{.sources = {{.path = a}}, .max_length = 48};
  const auto dataset = Open(recipe, {.epochs = 2});
  const auto all = static_cast<int64_t>(All(Open(recipe, {.epochs = 2}).get()).size());
  ASSERT_TRUE(*dataset->Next());
  ASSERT_TRUE(*dataset->Next());
  const DatasetState state = dataset->state();
  EXPECT_EQ(*dataset->CountSequences(), all);
  EXPECT_EQ(dataset->state(), state);
  EXPECT_EQ(static_cast<int64_t>(All(dataset.get()).size()), all - 2);
  EXPECT_THAT(Open(recipe, {})->CountSequences().error().message, HasSubstr("endless"));
}

TEST_F(DatasetTest, TemplatesTakeTheSameTimeAllAlong) {
  const std::string chats = corpus_.WriteChats("c.jsonl", {{"Hi", "Yes"}});
  const auto chat = ChatTemplate::Parse(
      "{{ strftime_now('%Y') }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}", "t");
  const DataRecipe recipe{.sources = {{.path = chats}}};
  const auto dataset =
      *Dataset::Open(recipe, {.epochs = 1, .unix_time = 86400 * 365}, {corpus_.tokenizer.get(), &*chat});
  const DatasetState state = dataset->state();
  EXPECT_THAT(Documents(All(dataset.get())[0])[0], HasSubstr("1971"));
  const auto later = *Dataset::Open(recipe, {.epochs = 1}, {corpus_.tokenizer.get(), &*chat});
  ASSERT_TRUE(later->Restore(state));
  EXPECT_THAT(Documents(All(later.get())[0])[0], HasSubstr("1971"));
}

TEST_F(DatasetTest, AStateOfOtherDataIsRefused) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 30));
  const DataRecipe recipe{.sources = {{.path = a}}, .max_length = 16};
  const auto dataset = Open(recipe, {.seed = 1});
  ASSERT_TRUE(*dataset->Next());
  const DatasetState state = dataset->state();
  ASSERT_TRUE(state.open);
  const auto error = [&](DatasetState wrong) { return dataset->Restore(wrong).error().message; };
  DatasetState wrong = state;
  wrong.seed = 2;
  EXPECT_THAT(error(wrong), HasSubstr("has seed 2, this one 1"));
  wrong = state;
  wrong.sources.push_back({});
  EXPECT_THAT(error(wrong), HasSubstr("has 2 sources, this one 1"));
  wrong = state;
  ++wrong.sources[0].fingerprint;
  EXPECT_THAT(error(wrong), HasSubstr("another file"));
  wrong = state;
  wrong.sources[0].position = 30;
  EXPECT_THAT(error(wrong), HasSubstr("row 30 of 30"));
  wrong = state;
  wrong.open->source = 1;
  EXPECT_THAT(error(wrong), HasSubstr("source 1 of 1"));
  wrong = state;
  wrong.open->row = 30;
  EXPECT_THAT(error(wrong), HasSubstr("row 30 of 30"));
  wrong = state;
  wrong.open->offset = 1 << 20;
  EXPECT_THAT(error(wrong), HasSubstr("token 1048576 of"));
  EXPECT_EQ(dataset->state(), state);

  corpus_.WriteTexts("a.jsonl", Numbered("b", 30));
  EXPECT_THAT(Open(recipe, {.seed = 1})->Restore(state).error().message, HasSubstr("another file"));
}

TEST_F(DatasetTest, AWrongStateIsAnError) {
  const std::string a = corpus_.WriteTexts("a.jsonl", Numbered("a", 30));
  const nlohmann::ordered_json good = ToJson(Open({.sources = {{.path = a}}}, {})->state());
  const auto error = [](const nlohmann::ordered_json& json) {
    return ParseDatasetState(json, "s.json").error().message;
  };
  EXPECT_THAT(error(3), HasSubstr("s.json"));
  for (const auto& [key, value] : good.items()) {
    nlohmann::ordered_json wrong = good;
    wrong.erase(key);
    EXPECT_THAT(error(wrong), HasSubstr(key));
    wrong[key] = "x";
    EXPECT_THAT(error(wrong), HasSubstr(key));
  }
  nlohmann::ordered_json wrong = good;
  wrong["sources"][0]["fingerprint"] = "xyz";
  EXPECT_THAT(error(wrong), HasSubstr("s.json.sources[0].fingerprint"));
  wrong = good;
  wrong["sources"][0]["pass"] = -1;
  EXPECT_THAT(error(wrong), HasSubstr("pass"));
  wrong = good;
  wrong["open"] = {{"source", 1}};
  EXPECT_THAT(error(wrong), HasSubstr("row"));
}

TEST_F(DatasetTest, WrongRowsAreSkippedAndTheFirstIsNamed) {
  const std::string good = R"({"text": "good enough"})"
                           "\n";
  std::string deep = "{\"text\": ";
  for (int i = 0; i < 100; ++i) deep += "[";
  const std::string path = corpus_.folder.Write(
      "a.jsonl",
      good + "\n  \r\nno json\n[]\n{}\n{\"text\": 3}\n{\"messages\": 3}\n{\"messages\": []}\n{\"messages\": [3]}\n" +
          deep + "\n{\"text\": \"\xff\xfe\"}\n" + std::string("{\"text\": \"a\0b\"}\n", 16) + good);
  const auto dataset = Open({.sources = {{.path = path}}, .pack_samples = false}, {.epochs = 1});
  EXPECT_THAT(AllDocuments(dataset.get()), ElementsAre("g{ood enough}", "g{ood enough}"));
  EXPECT_EQ(dataset->skipped_rows(), 10);
  EXPECT_THAT(dataset->warnings(), SizeIs(1));
}

TEST_F(DatasetTest, ErrorsNameTheFile) {
  const auto error = [&](const DataRecipe& recipe) {
    const auto dataset = Dataset::Open(recipe, {}, corpus_.text());
    if (!dataset) return dataset.error().message;
    const auto row = (*dataset)->Next();
    return row ? "no error" : row.error().message;
  };
  EXPECT_THAT(error({}), HasSubstr("no source to train on"));
  EXPECT_THAT(error({.sources = {{.path = "/nowhere/x.jsonl"}}}), HasSubstr("/nowhere/x.jsonl"));
  EXPECT_THAT(error({.sources = {{.path = corpus_.folder.path()}}}), HasSubstr(corpus_.folder.path()));
  const std::string empty = corpus_.folder.Write("e.jsonl", " \n\n");
  EXPECT_THAT(error({.sources = {{.path = empty}}}), HasSubstr("e.jsonl: there is no text in it"));
  const std::string wrong = corpus_.folder.Write("w.jsonl", "x\ny\nz\n");
  EXPECT_THAT(error({.sources = {{.path = wrong}}}),
              HasSubstr("w.jsonl: none of its 3 rows can be used: line: not valid"));
  const std::string good = corpus_.WriteTexts("g.jsonl", Numbered("g", 3));
  EXPECT_THAT(error({.sources = {{.path = good, .held_out = 3}}}), HasSubstr("g.jsonl: all 3 rows are held out"));
  EXPECT_THAT(error({.sources = {{.path = good, .role = SourceRole::kEval}}}), HasSubstr("no source to train on"));
  const std::string chats = corpus_.WriteChats("c.jsonl", {{"Hi", "Yes"}});
  const auto dataset = *Dataset::Open({.sources = {{.path = chats}}}, {}, {corpus_.tokenizer.get(), nullptr});
  EXPECT_THAT(dataset->Next().error().message, HasSubstr("no chat template"));
}

TEST_F(DatasetTest, AnyBytesAreRowsOrErrors) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    std::string bytes(random() % 4000, '\0');
    for (char& c : bytes) c = random() % 8 == 0 ? "\n{}[]\":\\"[random() % 8] : static_cast<char>(random());
    const std::string path = corpus_.folder.Write(round % 2 == 0 ? "r.jsonl" : "r.txt", bytes);
    const auto dataset = Dataset::Open({.sources = {{.path = path}}, .max_length = 16}, {.epochs = 1}, corpus_.text());
    if (!dataset) continue;
    for (auto row = (*dataset)->Next(); row && *row; row = (*dataset)->Next()) ASSERT_LE((*row)->tokens(), 16);
  }
}

}  // namespace
}  // namespace swiftkv
