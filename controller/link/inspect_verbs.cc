// Admin: the verbs by which a bank is looked through: bank.find, bank.segments, bank.map.
#include <nlohmann/json.hpp>

#include "controller/link/admin.h"
#include "controller/link/arguments.h"
#include "rl/whitened_keys.h"
#include "shared/base/json_dump.h"
#include "shared/memory/learn_config.h"
#include "shared/memory/word_windows.h"

namespace memslot {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kMostRows = 500;
constexpr std::uint64_t kMostPoints = 2000;

Json json_of(const CatalogRow& row) {
  Json out = {{"namespace", row.ns},
              {"id", row.id},
              {"version", row.version},
              {"kind", memory_kind_name(row.kind)},
              {"layer", row.layer},
              {"source", row.source},
              {"origin", version_origin_name(row.origin)},
              {"created_unix_ms", row.created_unix_ms},
              {"payload_bytes", row.payload_bytes},
              {"keys", row.keys},
              {"uses", row.uses},
              {"mean_net_gain", row.gains > 0 ? Json(row.mean_net_gain) : Json()},
              {"recall", row.recall ? Json(*row.recall) : Json()},
              {"nll_before", row.nll_before},
              {"nll_after", row.nll_after}};
  return out;
}

// Where a unit vector of the reduced space lies on the map: its two largest directions.
Json point_of(std::span<const float> reduced) {
  return {{"x", reduced.empty() ? 0.0f : reduced[0]},
          {"y", reduced.size() < 2 ? 0.0f : reduced[1]}};
}

}  // namespace

Result<Admin::Job> Admin::find_verb(const Access& access, Arguments& arguments) {
  CatalogQuery query;
  MEMSLOT_TRY(const auto text, arguments.text_if("query"));
  MEMSLOT_TRY(const auto ns, arguments.text_if("namespace"));
  MEMSLOT_TRY(const auto kind, arguments.text_if("kind"));
  MEMSLOT_TRY(const auto sort, arguments.text_if("sort"));
  MEMSLOT_TRY(const auto order, arguments.text_if("order"));
  MEMSLOT_TRY(query.offset, arguments.number_or("offset", 0));
  MEMSLOT_TRY(query.limit, arguments.number_or("limit", 50));
  MEMSLOT_TRY(arguments.finish());
  if (query.limit < 1 || query.limit > kMostRows) return invalid("limit", "1 to 500", query.limit);
  if (kind) {
    MEMSLOT_TRY(query.kind, parse_memory_kind(*kind));
  }
  if (sort) {
    MEMSLOT_TRY(query.order, parse_catalog_order(*sort));
  }
  if (order && *order != "asc" && *order != "desc") return invalid("order", "asc or desc", *order);
  query.descending = order == "desc";
  query.text = text.value_or("");
  return Job([=, this]() mutable -> Result<Answer> {
    query.namespaces = listed(access, ns);
    const CatalogPage page = p_.keeper.catalog().find(query);
    Json rows = Json::array();
    for (const CatalogRow& row : page.rows) rows.push_back(json_of(row));
    return text_answer(
        dump(Json{{"total", page.total}, {"offset", query.offset}, {"memories", std::move(rows)}}));
  });
}

// The windows of words whose mean slot inputs are the memory's keys.
Result<Admin::Job> Admin::segments_verb(const MemoryRef& ref) {
  return Job([=, this]() -> Result<Answer> {
    MEMSLOT_TRY(const MemoryVersion version, p_.bank.version(ref, quick_end()));
    MEMSLOT_TRY(const std::string text, p_.bank.load_source(version, quick_end()));
    MEMSLOT_TRY(const LearnConfig config, learn_config_from_json(version.stats.config));
    const auto words = words_of(text);
    Json segments = Json::array();
    for (const WordWindow& w :
         word_windows(std::ssize(words), config.window_words, config.stride_words)) {
      if (w.last <= w.first) continue;
      segments.push_back({{"begin", words[static_cast<std::size_t>(w.first)].begin},
                          {"end", words[static_cast<std::size_t>(w.last - 1)].end}});
    }
    const bool overlap = config.segments == SegmentLayout::kOverlap;
    return text_answer(dump(Json{{"layout", overlap ? "overlap" : "cumulative"},
                                 {"window_words", config.window_words},
                                 {"stride_words", config.stride_words},
                                 {"segments", std::move(segments)}}));
  });
}

// The index is this thread's: what the worker needs of it is copied here.
Result<Admin::Job> Admin::map_verb(const MemoryRef& ref, std::uint64_t others) {
  if (others > kMostPoints) return invalid("others", "at most 2000", others);
  const CandidateIndex& index = p_.keeper.index();
  const IndexedMemory* const known = index.find(ref.ns, ref.id);
  if (known == nullptr) return invisible("memory " + ref.text());
  const SpaceKey space = SpaceKey::of(known->version.signature);
  const Whitening* const found = index.whitening(space);
  const Whitening whitening = found == nullptr ? Whitening() : *found;
  const std::vector<std::string> namespaces{ref.ns};
  Json rest = Json::array();
  for (const IndexedMemory* one : index.some_members(space, namespaces, others)) {
    if (one == known) continue;
    Json point = {{"memory", one->version.ref.ns + "/" + one->version.ref.id},
                  {"source", one->version.source}};
    point.update(point_of(one->mean_key));
    rest.push_back(std::move(point));
  }
  return Job([=, this, rest = std::move(rest)]() mutable -> Result<Answer> {
    MEMSLOT_TRY(const MemoryVersion version, p_.bank.version(ref, quick_end()));
    Json own = Json::array();
    Json mean;
    const auto keys = p_.bank.load_keys(version, quick_end());
    if (!keys && keys.error().code != ErrorCode::kNotFound) return keys.error();
    if (keys && keys.value().dim == whitening.dim() && whitening.dim() > 0) {
      const WhitenedKeys whitened = whiten_keys(whitening, keys.value().values);
      const std::size_t width = whitening.reduced_dim();
      const std::span all(whitened.reduced);
      for (std::size_t at = 0; at < all.size(); at += width) {
        own.push_back(point_of(all.subspan(at, width)));
      }
      if (!own.empty()) mean = point_of(whitened.mean);
    }
    return text_answer(dump(
        Json{{"own", std::move(own)}, {"mean", std::move(mean)}, {"others", std::move(rest)}}));
  });
}

}  // namespace memslot
