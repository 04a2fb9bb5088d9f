#include "controller/step/catalog.h"

#include <algorithm>
#include <array>
#include <limits>

namespace memslot {
namespace {

constexpr std::size_t kAtOnce = 2048;  // rows copied under one lock

struct OrderName {
  std::string_view name;
  CatalogOrder order;
};
constexpr std::array<OrderName, 9> kOrders = {{{"id", CatalogOrder::kId},
                                               {"source", CatalogOrder::kSource},
                                               {"created", CatalogOrder::kCreated},
                                               {"version", CatalogOrder::kVersion},
                                               {"bytes", CatalogOrder::kBytes},
                                               {"keys", CatalogOrder::kKeys},
                                               {"uses", CatalogOrder::kUses},
                                               {"gain", CatalogOrder::kGain},
                                               {"recall", CatalogOrder::kRecall}}};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool contains(std::string_view text, std::string_view lowered) {
  return std::search(text.begin(), text.end(), lowered.begin(), lowered.end(),
                     [](char a, char b) { return lower(a) == b; }) != text.end();
}

std::string key_of(std::string_view ns, std::string_view id) {
  std::string out(ns);
  out += '/';
  out += id;
  return out;
}

}  // namespace

Result<CatalogOrder> parse_catalog_order(std::string_view name) {
  for (const OrderName& one : kOrders) {
    if (one.name == name) return one.order;
  }
  return invalid("sort", "id, source, created, version, bytes, keys, uses, gain or recall",
                 std::string(name));
}

// The row as it was put, and what moves between one put and the next.
struct Catalog::Entry {
  CatalogRow row;
  std::string name;  // "<ns>/<id>"
  std::atomic<std::uint64_t> uses = 0, gains = 0;
  std::atomic<double> mean_net_gain = 0;

  // Of the orders by number; what was not measured comes first.
  double number(CatalogOrder order) const {
    constexpr double kNone = std::numeric_limits<double>::lowest();
    switch (order) {
      case CatalogOrder::kCreated: return static_cast<double>(row.created_unix_ms);
      case CatalogOrder::kVersion: return static_cast<double>(row.version);
      case CatalogOrder::kBytes: return static_cast<double>(row.payload_bytes);
      case CatalogOrder::kKeys: return row.keys;
      case CatalogOrder::kUses: return static_cast<double>(uses.load());
      case CatalogOrder::kGain: return gains > 0 ? mean_net_gain.load() : kNone;
      case CatalogOrder::kRecall: return row.recall.value_or(kNone);
      case CatalogOrder::kId:
      case CatalogOrder::kSource: break;
    }
    return 0;
  }
};

Catalog::Catalog() = default;
Catalog::~Catalog() = default;

void Catalog::put(const MemoryVersion& head, std::uint64_t uses, std::uint64_t gains,
                  double mean_net_gain) {
  auto entry = std::make_shared<Entry>();
  CatalogRow& row = entry->row;
  row.ns = head.ref.ns;
  row.id = head.ref.id;
  row.source = head.source;
  row.version = head.ref.version;
  row.kind = head.signature.kind;
  row.origin = head.origin;
  row.layer = head.signature.layer;
  row.keys = head.keys;
  row.payload_bytes = head.payload_bytes;
  row.created_unix_ms = head.created_unix_ms;
  row.nll_before = head.stats.nll_before;
  row.nll_after = head.stats.nll_after;
  row.recall = head.stats.recall;
  entry->name = key_of(row.ns, row.id);
  entry->uses = uses;
  entry->gains = gains;
  entry->mean_net_gain = mean_net_gain;
  const std::lock_guard lock(mutex_);
  const auto [found, is_new] = where_.try_emplace(entry->name, slots_.size());
  if (is_new && !free_.empty()) {
    found->second = free_.back();
    free_.pop_back();
  } else if (is_new) {
    slots_.emplace_back();
  }
  slots_[found->second] = std::move(entry);
}

void Catalog::erase(std::string_view ns, std::string_view id) {
  const std::lock_guard lock(mutex_);
  const auto found = where_.find(key_of(ns, id));
  if (found == where_.end()) return;
  slots_[found->second].reset();
  free_.push_back(found->second);
  where_.erase(found);
}

void Catalog::note_use(std::string_view ns, std::string_view id, const float* net_gain) {
  const std::lock_guard lock(mutex_);
  const auto found = where_.find(key_of(ns, id));
  if (found == where_.end()) return;
  Entry& entry = *slots_[found->second];
  ++entry.uses;
  if (net_gain == nullptr) return;
  const std::uint64_t gains = ++entry.gains;
  const double mean = entry.mean_net_gain;
  entry.mean_net_gain = mean + (double{*net_gain} - mean) / static_cast<double>(gains);
}

std::size_t Catalog::size() const {
  const std::lock_guard lock(mutex_);
  return where_.size();
}

std::vector<Catalog::EntryPtr> Catalog::copy_of(std::size_t from) const {
  const std::lock_guard lock(mutex_);
  const std::size_t end = std::min(from + kAtOnce, slots_.size());
  if (from >= end) return {};
  return {slots_.begin() + static_cast<std::ptrdiff_t>(from),
          slots_.begin() + static_cast<std::ptrdiff_t>(end)};
}

CatalogPage Catalog::find(const CatalogQuery& query) const {
  std::string text = query.text;
  std::ranges::transform(text, text.begin(), lower);
  struct Found {
    double number;
    EntryPtr entry;
  };
  std::vector<Found> found;
  for (std::size_t from = 0;; from += kAtOnce) {
    const auto entries = copy_of(from);
    if (entries.empty()) break;
    for (const EntryPtr& entry : entries) {
      if (entry == nullptr) continue;
      const CatalogRow& row = entry->row;
      if (std::ranges::find(query.namespaces, row.ns) == query.namespaces.end()) continue;
      if (query.kind && *query.kind != row.kind) continue;
      if (!text.empty() && !contains(entry->name, text) && !contains(row.source, text)) continue;
      found.push_back({entry->number(query.order), entry});
    }
  }
  const auto before = [&](const Found& a, const Found& b) {
    const Found& first = query.descending ? b : a;
    const Found& second = query.descending ? a : b;
    if (first.number != second.number) return first.number < second.number;
    if (query.order == CatalogOrder::kSource && a.entry->row.source != b.entry->row.source) {
      return first.entry->row.source < second.entry->row.source;
    }
    if (query.order == CatalogOrder::kId) return first.entry->name < second.entry->name;
    return a.entry->name < b.entry->name;
  };
  CatalogPage out;
  out.total = found.size();
  const std::size_t begin = std::min(query.offset, found.size());
  const std::size_t end = std::min(begin + query.limit, found.size());
  const auto at = [&](std::size_t i) { return found.begin() + static_cast<std::ptrdiff_t>(i); };
  if (begin < found.size()) std::nth_element(at(0), at(begin), found.end(), before);
  std::partial_sort(at(begin), at(end), found.end(), before);
  for (std::size_t i = begin; i < end; ++i) {
    const Entry& entry = *found[i].entry;
    CatalogRow row = entry.row;
    row.uses = entry.uses;
    row.gains = entry.gains;
    row.mean_net_gain = entry.mean_net_gain;
    out.rows.push_back(std::move(row));
  }
  return out;
}

}  // namespace memslot
