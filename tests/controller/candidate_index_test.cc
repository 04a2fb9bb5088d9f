#include "controller/step/candidate_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/controller/memories.h"
#include "tests/support/test_seed.h"

namespace memslot {
namespace {

const std::vector<std::string> kDefault = {"default"};

MemoryVersion version_of(const std::string& id, const std::string& ns = "default",
                         const SlotSignature& signature = slot_signature()) {
  MemoryVersion v;
  v.ref = {.ns = ns, .id = id, .version = 1};
  v.signature = signature;
  return v;
}

std::vector<std::string> ids_of(const std::vector<CandidateIndex::Hit>& hits) {
  std::vector<std::string> out;
  for (const auto& hit : hits) out.push_back(hit.memory->version.ref.id);
  return out;
}

// `count` memories with `rows` keys each, in D = `dim` dimensions.
struct Cluster {
  Cluster(unsigned count, int rows, int dim, float spread, unsigned seed) : rng(seed) {
    signature = slot_signature();
    signature.d_model = dim;
    for (unsigned i = 0; i < count; ++i) {
      keys.push_back(keys_around(centre_of(i, dim), rows, spread, rng));
    }
  }
  CandidateIndex::Statistics fitted() const {
    std::vector<float> all;
    for (const auto& k : keys) all.insert(all.end(), k.begin(), k.end());
    const auto dim = static_cast<std::uint32_t>(signature.d_model);
    return {{SpaceKey::of(signature), Whitening::fit(all, dim, 1)}};
  }
  void fill(CandidateIndex& index) const {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      index.upsert(version_of(numbered(static_cast<unsigned>(i)), "default", signature), keys[i]);
    }
  }
  std::vector<float> query_near(unsigned memory, float spread) {
    return keys_around(centre_of(memory, signature.d_model), 1, spread, rng);
  }
  std::mt19937 rng;
  SlotSignature signature;
  std::vector<std::vector<float>> keys;
};

TEST(CandidateIndex, FindsNothingWhereThereIsNothing) {
  const CandidateIndex index;
  const auto space = SpaceKey::of(slot_signature());
  EXPECT_TRUE(index.query(space, centre_of(1)).empty());
  EXPECT_TRUE(index.nearest(space, kDefault, {}, 4).empty());
  EXPECT_TRUE(index.members(space, kDefault).empty());
  EXPECT_FALSE(index.refit_due());
}

TEST(CandidateIndex, FindsItsOnlyMemory) {
  std::mt19937 rng(1);
  CandidateIndex index;
  const auto keys = keys_around(centre_of(1), 5, 0.3f, rng);
  index.upsert(version_of("only"), keys);
  const auto space = SpaceKey::of(slot_signature());
  const auto query = index.query(space, std::span(keys).first(kDim));
  const auto hits = index.nearest(space, kDefault, query, 4);
  ASSERT_EQ(ids_of(hits), std::vector<std::string>{"only"});
  EXPECT_GT(hits[0].best_key, 0.95f);
}

TEST(CandidateIndex, ListsAMemoryWithoutKeysButNeverAsNear) {
  std::mt19937 rng(1);
  CandidateIndex index;
  index.upsert(version_of("silent"), {});
  index.upsert(version_of("spoken"), keys_around(centre_of(1), 5, 0.3f, rng));
  const auto space = SpaceKey::of(slot_signature());
  EXPECT_EQ(index.members(space, kDefault).size(), 2u);
  const auto query = index.query(space, centre_of(1));
  EXPECT_EQ(ids_of(index.nearest(space, kDefault, query, 4)), std::vector<std::string>{"spoken"});
}

TEST(CandidateIndex, GivesEachMemoryOnceBestFirstAndAtMostK) {
  Cluster cluster(40, 12, kDim, 0.4f, 2);
  CandidateIndex index(cluster.fitted());
  cluster.fill(index);
  const auto space = SpaceKey::of(cluster.signature);
  const auto hits = index.nearest(space, kDefault, index.query(space, centre_of(3)), 10);
  ASSERT_EQ(hits.size(), 10u);
  const auto ids = ids_of(hits);
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 10u);
  EXPECT_TRUE(std::is_sorted(hits.begin(), hits.end(),
                             [](const auto& a, const auto& b) { return a.best_key > b.best_key; }));
  EXPECT_EQ(ids[0], "m3");
  EXPECT_FLOAT_EQ(index.score(*hits[4].memory, index.query(space, centre_of(3))).best_key,
                  hits[4].best_key);
}

TEST(CandidateIndex, NeverShowsAnotherNamespaceModelOrLayer) {
  std::mt19937 rng(1);
  CandidateIndex index;
  const auto keys = keys_around(centre_of(1), 5, 0.3f, rng);
  index.upsert(version_of("mine", "a"), keys);
  index.upsert(version_of("theirs", "b"), keys);
  index.upsert(version_of("other-model", "a", slot_signature(MemoryKind::kLora, "other")), keys);
  index.upsert(version_of("other-layer", "a", slot_signature(MemoryKind::kLora, "a model", 4)),
               keys);
  const auto space = SpaceKey::of(slot_signature());
  const auto query = index.query(space, centre_of(1));
  const std::vector<std::string> a = {"a"}, both = {"a", "b"}, none = {};
  EXPECT_EQ(ids_of(index.nearest(space, a, query, 9)), std::vector<std::string>{"mine"});
  EXPECT_EQ(index.nearest(space, both, query, 9).size(), 2u);
  EXPECT_TRUE(index.nearest(space, none, query, 9).empty());
  EXPECT_EQ(index.members(space, a).size(), 1u);
}

TEST(CandidateIndex, ReplacesKeysOnAnUpdateAndForgetsOnErase) {
  Cluster cluster(12, 8, kDim, 0.2f, 3);
  CandidateIndex index(cluster.fitted());
  cluster.fill(index);
  const auto space = SpaceKey::of(cluster.signature);
  const auto first = [&](unsigned near) {
    return ids_of(index.nearest(space, kDefault, index.query(space, centre_of(near)), 1)).at(0);
  };
  EXPECT_EQ(first(4), "m4");
  index.upsert(version_of("m9"), cluster.keys[4]);
  index.erase("default", "m4");
  EXPECT_EQ(first(4), "m9");
  EXPECT_EQ(index.find("default", "m4"), nullptr);
  EXPECT_EQ(index.memories(), 11u);
  index.erase("default", "m9");
  EXPECT_NE(first(4), "m9");
  index.erase("default", "never there");
}

TEST(CandidateIndex, LeavesKeysWhereTheyAreWhenOnlyTheVersionChanges) {
  Cluster cluster(3, 4, kDim, 0.2f, 1);
  CandidateIndex index(cluster.fitted());
  cluster.fill(index);
  ASSERT_EQ(index.keyings(), 3u);
  auto next = version_of("m1");
  next.ref.version = 2;
  next.token = "written-back";
  IndexedMemory counts;
  counts.uses = 7;
  index.upsert(next, cluster.keys[1], counts);
  EXPECT_EQ(index.keyings(), 3u);
  EXPECT_EQ(index.keys(), 12u);
  EXPECT_EQ(index.memories(), 3u);
  const auto space = SpaceKey::of(cluster.signature);
  const auto query = index.query(space, cluster.query_near(1, 0.1f));
  const auto hits = index.nearest(space, kDefault, query, 1);
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(hits[0].memory->version.token, "written-back");
  EXPECT_EQ(hits[0].memory->uses, 7u);
  EXPECT_GT(hits[0].mean_key, 0.5f);
  EXPECT_EQ(hits[0].memory->published, index.publishes());
  auto other = cluster.keys[1];
  other[0] += 0.5f;
  index.upsert(next, other);
  EXPECT_EQ(index.keyings(), 4u);
  other.resize(2 * kDim);
  index.upsert(next, other);
  EXPECT_EQ(index.keyings(), 5u);
  EXPECT_EQ(index.keys(), 10u);
  next.signature.layer = 4;  // the same keys in another space
  index.upsert(next, other);
  EXPECT_EQ(index.keyings(), 6u);
  EXPECT_TRUE(index.nearest(space, kDefault, query, 3).size() == 2);
}

TEST(CandidateIndex, IsTheSameHoweverItCameAbout) {
  // Random publishes, updates and erasures against an index made at once from what is left.
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  Cluster cluster(60, 6, kDim, 0.4f, seed);
  CandidateIndex lived(cluster.fitted());
  std::map<std::string, std::size_t> left;  // id -> which keys
  for (int i = 0; i < 600; ++i) {
    const std::string id = numbered(static_cast<unsigned>(cluster.rng() % 40));
    if (cluster.rng() % 3 == 0) {
      lived.erase("default", id);
      left.erase(id);
    } else {
      left[id] = cluster.rng() % 60;
      lived.upsert(version_of(id), cluster.keys[left[id]]);
    }
  }
  CandidateIndex fresh(cluster.fitted());
  for (const auto& [id, which] : left) fresh.upsert(version_of(id), cluster.keys[which]);
  ASSERT_EQ(lived.memories(), fresh.memories());
  ASSERT_EQ(lived.keys(), fresh.keys());
  const auto space = SpaceKey::of(cluster.signature);
  for (unsigned near = 0; near < 40; ++near) {
    const auto query = fresh.query(space, cluster.query_near(near, 0.3f));
    std::map<std::string, float> a, b;
    for (const auto& hit : lived.nearest(space, kDefault, query, 60))
      a[hit.memory->version.ref.id] = hit.best_key;
    for (const auto& hit : fresh.nearest(space, kDefault, query, 60))
      b[hit.memory->version.ref.id] = hit.best_key;
    EXPECT_EQ(a, b);
  }
}

TEST(CandidateIndex, RecallsWhatAnExhaustiveSearchFinds) {
  // 220 memories of 10 keys: above the exact search's limit.
  Cluster cluster(220, 10, 32, 0.5f, 4);
  CandidateIndex index(cluster.fitted());
  cluster.fill(index);
  ASSERT_GT(index.keys(), kExactKeys);
  const auto space = SpaceKey::of(cluster.signature);
  const auto all = index.members(space, kDefault);
  int first_right = 0, in_top = 0, wanted = 0;
  for (unsigned i = 0; i < 200; ++i) {
    const auto query = index.query(space, cluster.query_near(i, 0.6f));
    std::vector<std::pair<float, std::string>> truth;
    for (const auto* m : all)
      truth.emplace_back(-index.score(*m, query).best_key, m->version.ref.id);
    std::sort(truth.begin(), truth.end());
    const auto found = ids_of(index.nearest(space, kDefault, query, 8));
    first_right += found.at(0) == truth[0].second;
    for (std::size_t j = 0; j < 4; ++j) {
      in_top += std::find(found.begin(), found.end(), truth[j].second) != found.end();
      ++wanted;
    }
  }
  EXPECT_GE(first_right, 198);
  EXPECT_GE(in_top, wanted * 95 / 100);
}

TEST(CandidateIndex, KeepsItsRecallThroughUpdatesOfALargeShard) {
  Cluster cluster(110, 20, 16, 0.4f, 5);
  CandidateIndex index(cluster.fitted());
  cluster.fill(index);
  cluster.fill(index);  // every memory again: all old keys are gone, half of the graph
  for (unsigned i = 0; i < 20; ++i) index.erase("default", numbered(i));
  const auto space = SpaceKey::of(cluster.signature);
  int right = 0;
  for (unsigned i = 20; i < 110; ++i) {
    const auto query = index.query(space, cluster.query_near(i, 0.2f));
    right += ids_of(index.nearest(space, kDefault, query, 1)).at(0) == numbered(i);
  }
  EXPECT_GE(right, 88);  // of 90
  for (unsigned i = 0; i < 20; ++i) {
    const auto query = index.query(space, centre_of(i, 16));
    for (const auto& id : ids_of(index.nearest(space, kDefault, query, 30))) {
      EXPECT_GE(std::stoi(id.substr(1)), 20);
    }
  }
}

TEST(CandidateIndex, BeatsRawCosineWhereAFewDimensionsAreHuge) {
  // Slot inputs as they are: an offset shared by all, and two dimensions that vary wildly whatever
  // the text is about.
  constexpr int kWide = 48;
  std::mt19937 rng(6);
  std::normal_distribution<float> normal;
  const auto disturb = [&](std::vector<float> rows) {
    for (std::size_t i = 0; i < rows.size(); i += kWide) {
      for (std::size_t d = 0; d < kWide; ++d) rows[i + d] += 3.0f;
      rows[i] += 60.0f * normal(rng);
      rows[i + 1] += 200.0f + 40.0f * normal(rng);
    }
    return rows;
  };
  Cluster cluster(60, 20, kWide, 0.8f, 7);
  for (auto& keys : cluster.keys) keys = disturb(keys);
  CandidateIndex index(cluster.fitted());
  cluster.fill(index);
  const auto space = SpaceKey::of(cluster.signature);
  const auto raw_cosine = [](std::span<const float> a, std::span<const float> b) {
    return dot(a.data(), b.data(), a.size()) /
           std::sqrt(dot(a.data(), a.data(), a.size()) * dot(b.data(), b.data(), b.size()));
  };
  int whitened_right = 0, raw_right = 0;
  for (unsigned i = 0; i < 60; ++i) {
    const auto hidden = disturb(cluster.query_near(i, 0.8f));
    whitened_right +=
        ids_of(index.nearest(space, kDefault, index.query(space, hidden), 1)).at(0) == numbered(i);
    float best = -2;
    std::size_t nearest = 0;
    for (std::size_t m = 0; m < cluster.keys.size(); ++m) {
      for (std::size_t row = 0; row < 20; ++row) {
        const float c = raw_cosine(hidden, std::span(cluster.keys[m]).subspan(row * kWide, kWide));
        if (c > best) best = c, nearest = m;
      }
    }
    raw_right += nearest == i;
  }
  RecordProperty("whitened", whitened_right);
  RecordProperty("raw", raw_right);
  EXPECT_GE(whitened_right, 54);  // of 60
  EXPECT_LE(raw_right, whitened_right / 2);
}

TEST(CandidateIndex, AsksForNewStatisticsWhenKeysHaveOutgrownThem) {
  std::mt19937 rng(8);
  CandidateIndex index;
  index.upsert(version_of("first"), keys_around(centre_of(1), 8, 0.3f, rng));
  EXPECT_FALSE(index.refit_due());
  index.upsert(version_of("second"), keys_around(centre_of(2), 1, 0.3f, rng));
  EXPECT_FALSE(index.refit_due());
  index.upsert(version_of("third"), keys_around(centre_of(3), 1, 0.3f, rng));
  EXPECT_TRUE(index.refit_due());
}

TEST(CandidateIndex, CountsUsesAndAveragesGains) {
  CandidateIndex index;
  index.upsert(version_of("m"), {});
  const float gain = 0.5f, loss = -0.1f;
  index.note_use("default", "m", &gain);
  index.note_use("default", "m", nullptr);
  index.note_use("default", "m", &loss);
  index.note_use("default", "unknown", &gain);
  const IndexedMemory* m = index.find("default", "m");
  EXPECT_EQ(m->uses, 3u);
  EXPECT_EQ(m->gains, 2u);
  EXPECT_NEAR(m->mean_net_gain, 0.2, 1e-7);
}

}  // namespace
}  // namespace memslot
