#include "rl/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "rl/features.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

Checkpoint some_checkpoint() {
  Checkpoint c;
  c.feature_version = kFeatureVersion;
  c.scorer = {.features = feature_count(), .key_dim = 3, .rank = 2, .hidden = 4};
  c.seed = 7;
  c.update = 12;
  c.config_digest = "ab";
  c.notes["made by"] = "a test";
  c.tensors["scorer.w1"] = {Shape{2, 2}, {1, 2, 3, 4}};
  return c;
}

TEST(Checkpoint, IsReadBackAsItWasWritten) {
  testing_support::TemporaryFolder folder;
  const std::string path = folder.path() + "/policy.safetensors";
  const Checkpoint saved = some_checkpoint();
  ASSERT_TRUE(saved.save(path));
  const auto read = Checkpoint::load(path);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read.value().bytes(), saved.bytes());
  EXPECT_EQ(read.value().digest(), saved.digest());
  EXPECT_EQ(read.value().notes.at("made by"), "a test");
}

// Ten rows of four numbers that vary in every direction: R is 3 or more.
Checkpoint with_whitening() {
  Checkpoint c = some_checkpoint();
  std::vector<float> rows;
  for (int i = 0; i < 40; ++i) rows.push_back(std::sin(static_cast<float>(i * i)));
  c.whitening = Whitening::fit(rows, 4, /*version=*/5, /*represented=*/1000);
  c.scorer.key_dim = c.whitening.reduced_dim();
  c.task = {.model = "abc",
            .layer = 24,
            .window_tokens = 48,
            .candidates = 16,
            .swap_cost = 0.1f,
            .generic_gain = 0.07f};
  return c;
}

TEST(Checkpoint, CarriesItsWhiteningBitForBitAndWhatItWasTrainedFor) {
  const Checkpoint saved = with_whitening();
  const auto read = Checkpoint::parse(saved.bytes());
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read.value().task, saved.task);
  EXPECT_EQ(read.value().tensors.size(), saved.tensors.size());
  const Whitening& w = read.value().whitening;
  EXPECT_EQ(w.digest(), saved.whitening.digest());
  EXPECT_EQ(w.fitted_rows(), 1000u);
  const std::vector<float> x = {0.5f, -2, 3, 0.25f};
  std::vector<float> want(w.reduced_dim()), got(w.reduced_dim());
  saved.whitening.apply(x, want);
  w.apply(x, got);
  EXPECT_EQ(got, want);
}

TEST(Checkpoint, WithAWhiteningOfOtherSizesIsRefused) {
  Checkpoint c = with_whitening();
  c.scorer.key_dim += 1;
  EXPECT_EQ(Checkpoint::parse(c.bytes()).error().code, ErrorCode::kMismatch);
  // A tensor in the whitening's place that fit() cannot have written.
  c = some_checkpoint();
  c.tensors["whitening.mean"] = {Shape{4}, {1, 2, 3, 4}};
  EXPECT_EQ(Checkpoint::parse(c.bytes()).error().code, ErrorCode::kCorruption);
  c.tensors["whitening.scale"] = {Shape{3}, {1, 2, 0}};
  c.tensors["whitening.inverse_sd"] = {Shape{4}, {1, 1, 1, 1}};
  c.tensors["whitening.projection"] = {Shape{3, 4}, std::vector<float>(12, 1.0f)};
  c.tensors["whitening.residual"] = {Shape{1}, {0}};
  EXPECT_EQ(Checkpoint::parse(c.bytes()).error().code, ErrorCode::kCorruption);
}

TEST(Checkpoint, TheDigestFollowsEveryNumber) {
  Checkpoint c = some_checkpoint();
  const std::string before = c.digest();
  c.tensors["scorer.w1"].values[3] = 5;
  EXPECT_NE(c.digest(), before);
}

TEST(Checkpoint, CutOffAtAnyByteItIsCorrupt) {
  const std::string whole = some_checkpoint().bytes();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const auto read = Checkpoint::parse(whole.substr(0, n));
    ASSERT_FALSE(read) << n;
    EXPECT_EQ(read.error().code, ErrorCode::kCorruption) << n << ": " << read.error().message;
  }
}

TEST(Checkpoint, OfOtherFeaturesIsAMismatchThatNamesBoth) {
  Checkpoint c = some_checkpoint();
  c.feature_version = kFeatureVersion + 1;
  const auto read = Checkpoint::parse(c.bytes());
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kMismatch);
  EXPECT_NE(read.error().message.find("version " + std::to_string(kFeatureVersion)),
            std::string::npos);
  EXPECT_NE(read.error().message.find("version " + std::to_string(kFeatureVersion + 1)),
            std::string::npos);
  c = some_checkpoint();
  c.scorer.features -= 1;
  EXPECT_EQ(Checkpoint::parse(c.bytes()).error().code, ErrorCode::kMismatch);
}

TEST(Checkpoint, NumbersThatAreNotFiniteAndSizesBeyondReasonAreCorrupt) {
  Checkpoint c = some_checkpoint();
  c.tensors["scorer.w1"].values[0] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Checkpoint::parse(c.bytes()).error().code, ErrorCode::kCorruption);
  c = some_checkpoint();
  c.scorer.hidden = 4'000'000'000;
  EXPECT_EQ(Checkpoint::parse(c.bytes()).error().code, ErrorCode::kCorruption);
}

TEST(Checkpoint, AnAbsentFileIsNotFound) {
  EXPECT_EQ(Checkpoint::load("/no/such/policy").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace memslot
