#include "generator/learn/recipe.h"

#include <gtest/gtest.h>

namespace memslot {
namespace {

TEST(Recipes, EveryOpenNumberGetsARecipe) {
  for (const MemoryKind kind : {MemoryKind::kMlp, MemoryKind::kLora}) {
    for (const SegmentLayout layout : {SegmentLayout::kOverlap, SegmentLayout::kCumulative}) {
      LearnConfig config;
      config.kind = kind;
      config.segments = layout;
      const LearnConfig full = with_defaults(config);
      EXPECT_GT(full.lr, 0);
      EXPECT_GT(full.max_steps, 0);
      EXPECT_GE(full.anchor, 0);
      EXPECT_GE(full.alone_share, 0);
      config.lr = 0.5f;
      config.anchor = 0;
      EXPECT_EQ(with_defaults(config).lr, 0.5f) << "what is given stays";
      EXPECT_EQ(with_defaults(config).anchor, 0.0f);
    }
  }
}

TEST(Recipes, TheRateWarmsUpAndDecays) {
  LearnConfig config;
  config.lr = 1;
  config.max_steps = 50;
  config.warmup_share = 0.1f;
  EXPECT_NEAR(learning_rate(config, 1), 0.2, 1e-6);
  EXPECT_NEAR(learning_rate(config, 5), 1, 1e-6);
  for (int step = 6; step <= 50; ++step)
    EXPECT_LE(learning_rate(config, step), learning_rate(config, step - 1));
  EXPECT_NEAR(learning_rate(config, 50), 0.1, 1e-3);
  config.max_steps = 1;
  EXPECT_GT(learning_rate(config, 1), 0);
}

}  // namespace
}  // namespace memslot
