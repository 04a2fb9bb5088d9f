// The catalog against a list that is searched and sorted plainly.
#include "controller/step/catalog.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <limits>
#include <map>
#include <random>

#include "tests/support/test_seed.h"

namespace memslot {
namespace {

constexpr CatalogOrder kOrders[] = {
    CatalogOrder::kId,      CatalogOrder::kSource, CatalogOrder::kCreated,
    CatalogOrder::kVersion, CatalogOrder::kBytes,  CatalogOrder::kKeys,
    CatalogOrder::kUses,    CatalogOrder::kGain,   CatalogOrder::kRecall};

std::string name_of(const CatalogRow& row) { return row.ns + "/" + row.id; }

double number_of(const CatalogRow& row, CatalogOrder order) {
  constexpr double kNone = std::numeric_limits<double>::lowest();
  switch (order) {
    case CatalogOrder::kCreated: return static_cast<double>(row.created_unix_ms);
    case CatalogOrder::kVersion: return static_cast<double>(row.version);
    case CatalogOrder::kBytes: return static_cast<double>(row.payload_bytes);
    case CatalogOrder::kKeys: return row.keys;
    case CatalogOrder::kUses: return static_cast<double>(row.uses);
    case CatalogOrder::kGain: return row.gains > 0 ? row.mean_net_gain : kNone;
    case CatalogOrder::kRecall: return row.recall.value_or(kNone);
    case CatalogOrder::kId:
    case CatalogOrder::kSource: break;
  }
  return 0;
}

// What find() is to answer.
CatalogPage found_in(const std::map<std::string, CatalogRow>& model, const CatalogQuery& query) {
  std::vector<CatalogRow> rows;
  std::string text = query.text;
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const auto& [name, row] : model) {
    if (std::ranges::find(query.namespaces, row.ns) == query.namespaces.end()) continue;
    if (query.kind && *query.kind != row.kind) continue;
    if (query.source && *query.source != row.source) continue;
    const bool has =
        name.find(text) != std::string::npos || row.source.find(text) != std::string::npos;
    if (has) rows.push_back(row);
  }
  std::ranges::stable_sort(rows, [&](const CatalogRow& a, const CatalogRow& b) {
    const CatalogRow& first = query.descending ? b : a;
    const CatalogRow& second = query.descending ? a : b;
    if (query.order == CatalogOrder::kId) return name_of(first) < name_of(second);
    if (query.order == CatalogOrder::kSource) return first.source < second.source;
    return number_of(first, query.order) < number_of(second, query.order);
  });
  CatalogPage out;
  out.total = rows.size();
  for (std::size_t i = query.offset; i < rows.size() && out.rows.size() < query.limit; ++i) {
    out.rows.push_back(rows[i]);
  }
  return out;
}

MemoryVersion drawn_head(std::mt19937& random) {
  static const char* const kNames[] = {"anger", "brig", "gorge", "tide"};
  MemoryVersion out;
  out.ref = {random() % 3 == 0 ? "notes" : "default", kNames[random() % 4], 0};
  out.ref.id += std::to_string(random() % 20);
  out.ref.version = 1 + random() % 5;
  out.source = random() % 5 == 0 ? "" : kNames[random() % 4];
  out.signature.kind = random() % 2 == 0 ? MemoryKind::kMlp : MemoryKind::kLora;
  out.signature.layer = static_cast<std::int32_t>(random() % 30);
  out.created_unix_ms = static_cast<std::int64_t>(random() % 50);
  out.payload_bytes = random() % 10;
  out.keys = random() % 4;
  out.stats.nll_before = 3;
  if (random() % 3 != 0) out.stats.recall = static_cast<double>(random() % 5) / 5;
  return out;
}

CatalogRow row_of(const MemoryVersion& head, std::uint64_t uses) {
  return {.ns = head.ref.ns,
          .id = head.ref.id,
          .source = head.source,
          .version = head.ref.version,
          .kind = head.signature.kind,
          .origin = head.origin,
          .layer = head.signature.layer,
          .keys = head.keys,
          .payload_bytes = head.payload_bytes,
          .created_unix_ms = head.created_unix_ms,
          .nll_before = head.stats.nll_before,
          .nll_after = head.stats.nll_after,
          .recall = head.stats.recall,
          .uses = uses};
}

CatalogQuery drawn_query(std::mt19937& random) {
  CatalogQuery out;
  out.namespaces = {"default"};
  if (random() % 2 == 0) out.namespaces.push_back("notes");
  static const char* const kTexts[] = {"", "g", "GOR", "default/", "e1", "nothing"};
  out.text = kTexts[random() % 6];
  if (random() % 3 == 0) out.kind = MemoryKind::kLora;
  if (random() % 4 == 0) out.source = random() % 3 == 0 ? "" : "gorge";
  out.order = kOrders[random() % std::size(kOrders)];
  out.descending = random() % 2 == 0;
  out.offset = random() % 3 == 0 ? 0 : random() % 60;
  out.limit = random() % 9 == 0 ? std::numeric_limits<std::size_t>::max() : 1 + random() % 20;
  return out;
}

void expect_equal(const CatalogPage& found, const CatalogPage& wanted) {
  EXPECT_EQ(found.total, wanted.total);
  ASSERT_EQ(found.rows.size(), wanted.rows.size());
  for (std::size_t i = 0; i < found.rows.size(); ++i) {
    const CatalogRow &a = found.rows[i], &b = wanted.rows[i];
    EXPECT_EQ(name_of(a), name_of(b)) << "row " << i;
    EXPECT_EQ(a.source, b.source);
    EXPECT_EQ(a.version, b.version);
    EXPECT_EQ(a.kind, b.kind);
    EXPECT_EQ(a.layer, b.layer);
    EXPECT_EQ(a.recall, b.recall);
    EXPECT_EQ(a.uses, b.uses);
    EXPECT_EQ(a.gains, b.gains);
    EXPECT_EQ(a.mean_net_gain, b.mean_net_gain);
  }
}

TEST(Catalog, AgreesWithAPlainListWhateverIsPutErasedAndUsed) {
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  std::mt19937 random(seed);
  Catalog catalog;
  std::map<std::string, CatalogRow> model;
  for (int step = 0; step < 3000; ++step) {
    const MemoryVersion head = drawn_head(random);
    const std::string name = head.ref.ns + "/" + head.ref.id;
    const auto known = model.find(name);
    if (random() % 3 == 0) {
      catalog.erase(head.ref.ns, head.ref.id);
      model.erase(name);
    } else if (random() % 2 == 0) {
      catalog.put(head, step % 7, 0, 0);
      model[name] = row_of(head, step % 7);
    } else {
      const float gain = 0.5f;
      catalog.note_use(head.ref.ns, head.ref.id, &gain);
      if (known != model.end()) {
        ++known->second.uses;
        ++known->second.gains;
        known->second.mean_net_gain = gain;
      }
    }
    const CatalogQuery query = drawn_query(random);
    SCOPED_TRACE(testing::Message()
                 << "step " << step << ", order " << static_cast<int>(query.order) << ", from "
                 << query.offset << ", text " << query.text);
    expect_equal(catalog.find(query), found_in(model, query));
    ASSERT_EQ(catalog.size(), model.size());
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Catalog, KnowsTheNamespacesThatHoldAMemory) {
  Catalog catalog;
  MemoryVersion head;
  const auto put = [&](const char* ns, const char* id) {
    head.ref = {ns, id, 1};
    catalog.put(head, 0, 0, 0);
  };
  put("notes", "a");
  put("default", "a");
  put("notes", "b");
  put("notes", "b");
  const std::vector<std::string> both = {"default", "notes"};
  EXPECT_EQ(catalog.namespaces(), both);
  catalog.erase("notes", "b");
  catalog.erase("notes", "b");
  EXPECT_EQ(catalog.namespaces(), both);
  catalog.erase("notes", "a");
  EXPECT_EQ(catalog.namespaces(), std::vector<std::string>{"default"});
}

TEST(Catalog, ASearchDoesNotReachFromTheNameIntoTheSource) {
  Catalog catalog;
  MemoryVersion head;
  head.ref = {"default", "tide", 1};
  head.source = "gorge";
  catalog.put(head, 0, 0, 0);
  CatalogQuery query;
  query.namespaces = {"default"};
  for (const std::string& text :
       {std::string("egor"), std::string("tide\0gorge", 10), std::string(1, '\0')}) {
    query.text = text;
    EXPECT_EQ(catalog.find(query).total, 0u);
  }
  query.text = "gorge";
  EXPECT_EQ(catalog.find(query).total, 1u);
}

}  // namespace
}  // namespace memslot
