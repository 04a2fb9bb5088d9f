#include "controller/step/catalog.h"

#include <fmt/format.h>

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

// The row as it was put, and what moves between one put and the next. What is searched is in one
// piece: a search of all rows takes as long as fetching them does.
struct Catalog::Entry {
  Entry(const MemoryVersion& head, std::uint64_t used, std::uint64_t measured, double mean)
      : text(fmt::format("{}/{}{}{}", head.ref.ns, head.ref.id, '\0', head.source)),
        slash(head.ref.ns.size()),
        end(slash + 1 + head.ref.id.size()),
        version(head.ref.version),
        kind(head.signature.kind),
        origin(head.origin),
        layer(head.signature.layer),
        keys(head.keys),
        payload_bytes(head.payload_bytes),
        created_unix_ms(head.created_unix_ms),
        nll_before(head.stats.nll_before),
        nll_after(head.stats.nll_after),
        recall(head.stats.recall),
        uses(used),
        gains(measured),
        mean_net_gain(mean) {}

  std::string_view name() const { return std::string_view(text).substr(0, end); }
  std::string_view ns() const { return std::string_view(text).substr(0, slash); }
  std::string_view id() const { return name().substr(slash + 1); }
  std::string_view source() const { return std::string_view(text).substr(end + 1); }

  CatalogRow row() const {
    return {.ns = std::string(ns()),
            .id = std::string(id()),
            .source = std::string(source()),
            .version = version,
            .kind = kind,
            .origin = origin,
            .layer = layer,
            .keys = keys,
            .payload_bytes = payload_bytes,
            .created_unix_ms = created_unix_ms,
            .nll_before = nll_before,
            .nll_after = nll_after,
            .recall = recall,
            .uses = uses,
            .gains = gains,
            .mean_net_gain = mean_net_gain};
  }

  const std::string text;        // "<ns>/<id>", a NUL, the source
  const std::size_t slash, end;  // of the name, in `text`
  const std::uint64_t version;
  const MemoryKind kind;
  const VersionOrigin origin;
  const std::int32_t layer;
  const std::uint32_t keys;
  const std::uint64_t payload_bytes;
  const std::int64_t created_unix_ms;
  const double nll_before, nll_after;
  const std::optional<double> recall;
  std::atomic<std::uint64_t> uses, gains;
  std::atomic<double> mean_net_gain;

  // `lowered`: the query's text.
  bool matches(const CatalogQuery& query, std::string_view lowered) const {
    return std::ranges::find(query.namespaces, ns()) != query.namespaces.end() &&
           (!query.kind || *query.kind == kind) && (!query.source || *query.source == source()) &&
           contains(text, lowered);
  }

  // Of the orders by number; what was not measured comes first.
  double number(CatalogOrder order) const {
    constexpr double kNone = std::numeric_limits<double>::lowest();
    switch (order) {
      case CatalogOrder::kCreated: return static_cast<double>(created_unix_ms);
      case CatalogOrder::kVersion: return static_cast<double>(version);
      case CatalogOrder::kBytes: return static_cast<double>(payload_bytes);
      case CatalogOrder::kKeys: return keys;
      case CatalogOrder::kUses: return static_cast<double>(uses.load());
      case CatalogOrder::kGain: return gains > 0 ? mean_net_gain.load() : kNone;
      case CatalogOrder::kRecall: return recall.value_or(kNone);
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
  auto entry = std::make_shared<Entry>(head, uses, gains, mean_net_gain);
  const std::lock_guard lock(mutex_);
  std::size_t slot = slots_.size();
  if (const auto found = where_.find(entry->name()); found != where_.end()) {
    slot = found->second;
    where_.erase(found);  // its key is the old entry's
  } else {
    ++held_[head.ref.ns];
    if (free_.empty()) {
      slots_.emplace_back();
    } else {
      slot = free_.back();
      free_.pop_back();
    }
  }
  where_.emplace(entry->name(), slot);
  slots_[slot] = std::move(entry);
}

void Catalog::erase(std::string_view ns, std::string_view id) {
  const std::lock_guard lock(mutex_);
  const auto found = where_.find(key_of(ns, id));
  if (found == where_.end()) return;
  const std::size_t slot = found->second;
  where_.erase(found);  // before the entry that its key is of
  slots_[slot].reset();
  free_.push_back(slot);
  const auto held = held_.find(ns);
  if (--held->second == 0) held_.erase(held);
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

std::vector<std::string> Catalog::namespaces() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [ns, memories] : held_) out.push_back(ns);
  return out;
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
  if (text.find('\0') != std::string::npos) return {};  // no name has it, but an entry's text has
  struct Found {
    double number;
    EntryPtr entry;
  };
  std::vector<Found> found;
  for (std::size_t from = 0;; from += kAtOnce) {
    const auto entries = copy_of(from);
    if (entries.empty()) break;
    for (const EntryPtr& entry : entries) {
      if (entry == nullptr || !entry->matches(query, text)) continue;
      found.push_back({entry->number(query.order), entry});
    }
  }
  const auto before = [&](const Found& a, const Found& b) {
    const Found& first = query.descending ? b : a;
    const Found& second = query.descending ? a : b;
    if (first.number != second.number) return first.number < second.number;
    if (query.order == CatalogOrder::kSource && a.entry->source() != b.entry->source()) {
      return first.entry->source() < second.entry->source();
    }
    if (query.order == CatalogOrder::kId) return first.entry->name() < second.entry->name();
    return a.entry->name() < b.entry->name();
  };
  CatalogPage out;
  out.total = found.size();
  const std::size_t begin = std::min(query.offset, found.size());
  const std::size_t end = begin + std::min(query.limit, found.size() - begin);
  const auto at = [&](std::size_t i) { return found.begin() + static_cast<std::ptrdiff_t>(i); };
  if (begin > 0 && begin < found.size()) {
    std::nth_element(at(0), at(begin), found.end(), before);
  }
  std::partial_sort(at(begin), at(end), found.end(), before);
  for (std::size_t i = begin; i < end; ++i) out.rows.push_back(found[i].entry->row());
  return out;
}

}  // namespace memslot
