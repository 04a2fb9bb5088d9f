// Question: what does the catalog, the list of all memories that the inspector searches, hold and
// take?
// Budget:   part of the 100 MB and of the 300 ms that the inspector may cost at 100,000 memories
// (inspector_scale.py; docs/performance.md).
//
//   catalog_bench [memories]
//
// Prints one JSON line: the heap that it holds, in millions of bytes, and the median milliseconds
// of a page.
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "controller/step/catalog.h"
#include "shared/base/log.h"

namespace memslot {
namespace {

using Steady = std::chrono::steady_clock;
constexpr int kRounds = 21;

std::uint64_t heap_bytes() { return mallinfo2().uordblks + mallinfo2().hblkhd; }

MemoryVersion head_of(unsigned number) {
  MemoryVersion out;
  out.ref = {"default", fmt::format("orchard-lantern-{:06}-lora", number), 1};
  out.source = "orchard-lantern";
  out.signature.kind = MemoryKind::kLora;
  out.created_unix_ms = number;
  out.stats.recall = 0.9;
  return out;
}

double milliseconds(const Catalog& catalog, const CatalogQuery& query) {
  std::vector<double> taken;
  for (int round = 0; round < kRounds; ++round) {
    const auto began = Steady::now();
    const CatalogPage page = catalog.find(query);
    taken.push_back(std::chrono::duration<double, std::milli>(Steady::now() - began).count());
    if (page.total == 0) std::exit(1);
  }
  std::ranges::nth_element(taken, taken.begin() + kRounds / 2);
  return taken[kRounds / 2];
}

int run(unsigned memories) {
  Catalog catalog;
  const std::uint64_t before = heap_bytes();
  for (unsigned i = 0; i < memories; ++i) catalog.put(head_of(i), i % 50, i % 50, 0.1);
  const std::uint64_t held = heap_bytes() - before;
  CatalogQuery query;
  query.namespaces = {"default"};
  nlohmann::ordered_json out = {{"memories", memories}, {"mb", static_cast<double>(held) / 1e6}};
  out["first_page_ms"] = milliseconds(catalog, query);
  query.text = "lantern-0001";
  out["search_ms"] = milliseconds(catalog, query);
  query = {.namespaces = {"default"},
           .text = "lora",
           .source = {},
           .kind = {},
           .order = CatalogOrder::kGain};
  query.offset = memories / 2;
  out["sorted_middle_ms"] = milliseconds(catalog, query);
  std::puts(out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace memslot

int main(int argc, char** argv) {
  return memslot::run(argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 100'000);
}
