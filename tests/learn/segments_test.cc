#include "generator/learn/segments.h"

#include <gtest/gtest.h>

#include "generator/learn/batches.h"
#include "tests/learn/tiny_model.h"

namespace memslot {
namespace {

using namespace testing_support;

std::string words(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += 'w';
    text += std::to_string(i);
  }
  return text;
}

TEST(Segments, TokensKeepTheSpaceBeforeTheirWord) {
  const Tokenizer tokenizer = byte_tokenizer();
  const SegmentedText text = must(segment_text(tokenizer, "ab  c\nde "));
  EXPECT_EQ(text.words, 3);
  //                                      a  b  _  _  c  \n d  e  _
  EXPECT_EQ(text.word_of, (std::vector<std::int64_t>{0, 0, 1, 1, 1, 2, 2, 2, 2}));
}

TEST(Segments, ATextWithoutAWordIsRefused) {
  const Tokenizer tokenizer = byte_tokenizer();
  for (const char* empty : {"", "  \n\t "}) {
    const auto text = segment_text(tokenizer, empty);
    ASSERT_FALSE(text);
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_FALSE(segment_text(tokenizer, "\xff\xfe"));
}

TEST(Segments, WindowsCoverEveryTokenAndOverlapAsAsked) {
  const Tokenizer tokenizer = byte_tokenizer();
  for (const int count : {1, 5, 8, 9, 31, 32}) {
    const SegmentedText text = must(segment_text(tokenizer, words(count)));
    const auto ranges = windows(text, 8, 4);
    EXPECT_EQ(ranges.front().first, 0);
    EXPECT_EQ(ranges.back().first + ranges.back().count, std::ssize(text.tokens));
    for (std::size_t i = 1; i < ranges.size(); ++i) {
      EXPECT_GT(ranges[i].first, ranges[i - 1].first);
      EXPECT_LT(ranges[i].first, ranges[i - 1].first + ranges[i - 1].count)
          << "no gap, some overlap";
    }
    EXPECT_EQ(ranges.size(), count <= 8 ? 1u : static_cast<std::size_t>((count - 8 + 3) / 4 + 1));
  }
}

// Material with tokens only, as Batches reads it.
Material tokens_only(const SegmentedText& text, const std::vector<TokenRange>& ranges) {
  Material m;
  m.tokens.push_back(text.tokens);
  for (const TokenRange& r : ranges) {
    const auto first = text.tokens.begin() + r.first;
    m.tokens.emplace_back(first, first + r.count);
  }
  return m;
}

TEST(Batches, CumulativeCountsEveryTokenOfTheTextOnce) {
  const Tokenizer tokenizer = byte_tokenizer();
  const SegmentedText text = must(segment_text(tokenizer, words(40)));
  const Material material = tokens_only(text, {});
  LearnConfig config;
  config.alone_share = 0;
  Batches batches(material, {}, config);
  const auto batch = batches.next();
  EXPECT_TRUE(batch.whole);
  EXPECT_EQ(batch.rows.rows(), std::ssize(text.tokens));
  for (std::size_t t = 0; t + 1 < text.tokens.size(); ++t)
    EXPECT_EQ(batch.rows.targets[t], text.tokens[t + 1]);
  EXPECT_EQ(batch.rows.targets.back(), -1);
}

TEST(Batches, OverlapTakesEveryWindowBeforeAnyTwice) {
  const Tokenizer tokenizer = byte_tokenizer();
  const SegmentedText text = must(segment_text(tokenizer, words(64)));
  const auto ranges = windows(text, 8, 4);
  const Material material = tokens_only(text, ranges);
  LearnConfig config;
  config.segments = SegmentLayout::kOverlap;
  config.alone_share = 1;
  Batches batches(material, ranges, config);
  std::vector<int> taken(ranges.size() + 1, 0);
  int total = 0;
  while (total < std::ssize(ranges)) {
    const auto batch = batches.next();
    EXPECT_FALSE(batch.whole);
    EXPECT_LE(batch.rows.rows(), batches.max_rows());
    for (const std::size_t s : batch.sequences) {
      if (total++ < std::ssize(ranges)) {
        EXPECT_EQ(++taken[s], 1);
      }
    }
  }
  EXPECT_EQ(taken[0], 0) << "sequence 0 is the whole text";
}

TEST(Batches, AWindowsFirstTokensAreCountedOnlyAtTheTextsBeginning) {
  const Tokenizer tokenizer = byte_tokenizer();
  const SegmentedText text = must(segment_text(tokenizer, words(64)));
  const auto ranges = windows(text, 8, 4);
  const Material material = tokens_only(text, ranges);
  LearnConfig config;
  config.alone_share = 0.5f;
  Batches batches(material, ranges, config);
  for (int i = 0; i < 20; ++i) {
    const auto batch = batches.next();
    std::size_t row = 0;
    double sum = 0;
    for (const float w : batch.rows.weights) sum += double{w};
    std::int64_t counted = 0;
    for (std::size_t s = 0; s < batch.sequences.size(); ++s) {
      const std::size_t sequence = batch.sequences[s];
      const bool begins = sequence == 0 || ranges[sequence - 1].first == 0;
      EXPECT_EQ(batch.rows.targets[row] >= 0, begins);
      for (std::int64_t t = 0; t < batch.rows.lengths[s]; ++t)
        counted += batch.rows.targets[row++] >= 0 ? 1 : 0;
    }
    EXPECT_NEAR(sum / static_cast<double>(batch.rows.rows()) * static_cast<double>(counted), 1,
                1e-3);
  }
}

}  // namespace
}  // namespace memslot
