#include "rl/streams.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

namespace memslot {
namespace {

// Word w of text number n is one token: 1000 n + w.
TokenText numbered(int number, int tokens) {
  std::string text;
  std::vector<std::int32_t> ids;
  std::vector<std::string> pieces;
  for (int i = 0; i < tokens; ++i) {
    pieces.push_back((i == 0 ? "w" : " w") + std::to_string(i));
    text += pieces.back();
    ids.push_back(10000 * number + i);
  }
  auto made = TokenText::make(text, ids, pieces);
  EXPECT_TRUE(made);
  return std::move(made).value();
}

struct Streams : testing::Test {
  std::vector<SourceArticle> articles;
  std::vector<CleanText> clean;
  StreamOptions options;

  Streams() {
    for (int i = 0; i < 30; ++i) {
      articles.push_back({"Title " + std::to_string(i % 29), numbered(i, 700 + 90 * i)});
    }
    const Split splits[] = {Split::kTrain, Split::kValidation, Split::kTest};
    for (int i = 0; i < 6; ++i)
      clean.push_back({"prose" + std::to_string(i), splits[i % 3], i >= 3, numbered(100 + i, 110)});
    options.model = "m";
    options.learn_config = "{}";
  }
  StreamSet make() {
    auto made = make_streams(articles, clean, options);
    EXPECT_TRUE(made) << (made ? "" : made.error().message);
    return std::move(made).value();
  }
  static int article_of(std::int32_t id) { return id / 10000; }
};

TEST_F(Streams, SplitsAreInProportionAndAQuarterOfEachHasNoMemory) {
  const StreamSet set = make();
  std::map<Split, std::pair<int, int>> found;
  std::set<std::string> names;
  for (const TableSource& s : set.sources) {
    ++found[s.split].first;
    if (!s.has_memory) ++found[s.split].second;
    EXPECT_TRUE(names.insert(s.name).second) << s.name;
  }
  EXPECT_EQ(found[Split::kTrain], std::make_pair(18, 5));
  EXPECT_EQ(found[Split::kValidation], std::make_pair(4, 1));
  EXPECT_EQ(found[Split::kTest], std::make_pair(8, 2));
  for (const PlannedMemory& m : set.memories)
    EXPECT_TRUE(set.sources[static_cast<std::size_t>(m.source)].has_memory);
}

TEST_F(Streams, MemoriesOfASourceDoNotOverlapAndHoldSomeTokensBack) {
  const StreamSet set = make();
  std::map<std::int32_t, std::uint64_t> end;
  std::set<std::string> ids;
  for (const PlannedMemory& m : set.memories) {
    EXPECT_EQ(m.tokens, 512u);
    EXPECT_EQ(m.words, m.tokens);  // here a word is a token
    if (end.contains(m.source)) {
      EXPECT_GE(m.first_token, end[m.source] + 128);
    }
    end[m.source] = m.first_token + m.tokens;
    EXPECT_TRUE(ids.insert(m.id).second);
    std::string first = "w";
    first += std::to_string(m.first_word);
    EXPECT_EQ(m.text.substr(0, first.size()), first);
  }
  options.learn_config = "{\"rank\":8}";
  EXPECT_NE(make().memories[0].id, set.memories[0].id);
}

TEST_F(Streams, AStreamsTextComesFromWhereItsStepsSay) {
  const StreamSet set = make();
  std::map<std::string, int> kinds;
  std::uint64_t rows = 0;
  for (const PlannedStream& s : set.streams) {
    EXPECT_EQ(s.table.first, rows);
    rows += s.table.steps.size();
    std::size_t at = 1;
    for (const TableStep& step : s.table.steps) {
      for (std::uint32_t i = 0; i < step.tokens; ++i, ++at) {
        ASSERT_LT(at, s.ids.size());
        const int article = article_of(s.ids[at]);
        if (i > 0) {
          EXPECT_EQ(s.ids[at], s.ids[at - 1] + 1);
        }
        if (step.source < 0) {
          EXPECT_GE(article, 100);
          EXPECT_EQ(clean[static_cast<std::size_t>(article - 100)].split, s.table.split);
          continue;
        }
        const auto source = static_cast<std::size_t>(step.source);
        EXPECT_EQ("Title " + std::to_string(article % 29), set.titles[source]);
        EXPECT_EQ(set.sources[source].split, s.table.split);
        EXPECT_EQ(step.covered, set.sources[source].has_memory);
      }
    }
    EXPECT_EQ(at, s.ids.size());
    ++kinds[s.table.id.substr(0, s.table.id.find('-'))];
  }
  EXPECT_NEAR(kinds["stream"], 144, 1);
  EXPECT_NEAR(kinds["prompt"], 48, 1);
  EXPECT_NEAR(kinds["continuation"], 24, 1);
  EXPECT_EQ(kinds["control"], 4);  // both texts of training, and a passage of each other split
}

TEST_F(Streams, ControlsArePassagesWholeAndEightStepsOfEachTrainingText) {
  clean[0].text = numbered(100, 700);
  std::map<Split, std::vector<const PlannedStream*>> found;
  const StreamSet set = make();
  for (const PlannedStream& s : set.streams) {
    if (s.table.kind != StreamKind::kControl) continue;
    found[s.table.split].push_back(&s);
    EXPECT_FALSE(s.table.steps[0].covered);
    EXPECT_EQ(s.table.steps[0].source, -1);
  }
  ASSERT_EQ(found[Split::kTrain].size(), 2u);
  EXPECT_EQ(found[Split::kTrain][0]->ids.size(), 8 * 16 + 1u);
  EXPECT_EQ(found[Split::kTrain][0]->table.steps.size(), 8u);
  EXPECT_NE(found[Split::kTrain][0]->ids[0], clean[0].text.ids[0]) << "from any token on";
  EXPECT_EQ(found[Split::kTrain][1]->ids, clean[3].text.ids) << "a text shorter than that, whole";
  for (const auto& [split, passage] : {std::pair(Split::kValidation, 4), {Split::kTest, 5}}) {
    ASSERT_EQ(found[split].size(), 1u);
    EXPECT_EQ(found[split][0]->ids, clean[static_cast<std::size_t>(passage)].text.ids);
  }
}

TEST_F(Streams, CoveredPassagesAreOfWhatAMemoryLearnedAndContinuationsEndInWhatNoneDid) {
  const StreamSet set = make();
  const auto learned = [&](std::int32_t source, std::int32_t id) {
    for (const PlannedMemory& m : set.memories) {
      const auto token = static_cast<std::uint64_t>(id % 10000);
      if (m.source == source && token >= m.first_token && token < m.first_token + m.tokens)
        return true;
    }
    return false;
  };
  for (const PlannedStream& s : set.streams) {
    std::size_t at = 1;
    for (std::size_t t = 0; t < s.table.steps.size(); ++t) {
      const TableStep& step = s.table.steps[t];
      const bool unseen = s.table.kind == StreamKind::kContinuation && t >= 4;
      for (std::uint32_t i = 0; i < step.tokens; ++i, ++at) {
        if (step.covered) {
          ASSERT_EQ(learned(step.source, s.ids[at]), !unseen) << s.table.id << " " << t;
        }
      }
    }
  }
}

TEST_F(Streams, PassagesAreTwoToSixStepsAndAQuarterIsUncovered) {
  options.streams = 600;
  const StreamSet set = make();
  std::map<std::size_t, int> lengths;
  std::set<int> offsets;
  int passages = 0, uncovered = 0, prose = 0;
  for (const PlannedStream& s : set.streams) {
    if (s.table.kind != StreamKind::kStream) continue;
    ASSERT_EQ(s.table.steps.size(), 24u);
    for (std::size_t t = 0; t < 24;) {
      const std::size_t first = 1 + 16 * t;
      std::size_t last = t + 1;
      while (last < 24 && s.ids[1 + 16 * last] == s.ids[16 * last] + 1) ++last;
      ++passages;
      if (!s.table.steps[t].covered) ++uncovered;
      if (s.table.steps[t].source < 0) ++prose;
      if (last < 24) ++lengths[last - t];
      offsets.insert(s.ids[first] % 16);
      t = last;
    }
  }
  for (const auto& [length, count] : lengths) {
    EXPECT_GE(length, 2u);
    EXPECT_LE(length, 6u);
    EXPECT_GT(count, 100) << length;
  }
  EXPECT_NEAR(static_cast<double>(uncovered) / passages, 0.25, 0.03);
  EXPECT_NEAR(static_cast<double>(prose) / passages, 0.125, 0.02);
  EXPECT_EQ(offsets.size(), 16u);
}

TEST_F(Streams, APromptHasItsWordsAndThenOneStepOf64Tokens) {
  for (const PlannedStream& s : make().streams) {
    if (s.table.kind != StreamKind::kPrompt) continue;
    EXPECT_EQ(s.table.steps.back().tokens, 64u);
    EXPECT_GE(s.ids.size(), 32u + 64u);
    EXPECT_LE(s.ids.size(), 64u + 64u);
  }
}

TEST_F(Streams, TheSameSeedGivesTheSameBytesAndAnotherOneOthers) {
  const std::string first = make().json();
  EXPECT_EQ(make().json(), first);
  const auto parsed = nlohmann::json::parse(first);
  EXPECT_EQ(parsed["format"], "memslot-streams-1");
  EXPECT_EQ(parsed["streams"][0]["ids"].size(), 1 + 24 * 16);
  options.seed = 2;
  EXPECT_NE(make().json(), first);
}

TEST_F(Streams, TooFewArticlesTooShortOnesOrNoProseAreRefused) {
  const auto refused = [&](const char* what) {
    const auto made = make_streams(articles, clean, options);
    ASSERT_FALSE(made) << what;
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(made.error().message.find(what), std::string::npos) << made.error().message;
  };
  clean.erase(clean.begin() + 1);
  clean.erase(clean.begin() + 3);
  refused("clean prose of the split validation");
  articles.resize(11);
  refused("expected at least 12, found 11");
  for (int i = 0; i < 9; ++i) articles.push_back({"short", numbered(60 + i, 100)});
  refused("expected at least 12, found 11");
}

TEST_F(Streams, ShortArticlesHaveOneMemoryOfAllTheyAre) {
  for (SourceArticle& a : articles) a.text = numbered(article_of(a.text.ids[0]), 300);
  const StreamSet set = make();
  for (const PlannedMemory& m : set.memories) EXPECT_EQ(m.tokens, 300u);
  for (const PlannedStream& s : set.streams) EXPECT_NE(s.table.kind, StreamKind::kContinuation);
}

}  // namespace
}  // namespace memslot
