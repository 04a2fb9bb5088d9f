#include "controller/step/key_shard.h"

#include <hnswlib/hnswlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "shared/base/error.h"

namespace memslot {
namespace {

constexpr KeyShard::Owner kGone = ~KeyShard::Owner{0};
constexpr std::size_t kLinks = 16;          // M of HNSW
constexpr std::size_t kBuildBreadth = 64;   // ef_construction
constexpr std::size_t kAhead = 4;           // rows
constexpr std::size_t kLeastBreadth = 192;  // proposals looked at by one search; ef of the graph

// hnswlib's distance for unit vectors, by our own dot product (its own is fixed at compile time).
float distance(const void* a, const void* b, const void* dim) {
  return 1.0f - dot(static_cast<const float*>(a), static_cast<const float*>(b),
                    *static_cast<const std::size_t*>(dim));
}

class UnitSpace final : public hnswlib::SpaceInterface<float> {
 public:
  explicit UnitSpace(std::size_t dim) : dim_(dim) {}
  std::size_t get_data_size() override { return dim_ * sizeof(float); }
  hnswlib::DISTFUNC<float> get_dist_func() override { return distance; }
  void* get_dist_func_param() override { return &dim_; }

 private:
  std::size_t dim_;
};

}  // namespace

struct KeyShard::Graph {
  Graph(std::size_t dim, std::size_t capacity)
      : space(dim), nodes(&space, capacity, kLinks, kBuildBreadth, /*random_seed=*/1) {}
  // Of a file of hnswlib's; throws what it does.
  Graph(std::size_t dim, const std::string& path, std::size_t capacity)
      : space(dim), nodes(&space, path, /*nmslib=*/false, capacity) {}
  // Of the file that saveIndex() writes: its header, the lowest layer, and each node's links above.
  std::size_t file_bytes() const {
    const auto& n = nodes;
    std::size_t out = sizeof(n.offsetLevel0_) + sizeof(n.max_elements_) +
                      sizeof(n.cur_element_count) + sizeof(n.size_data_per_element_) +
                      sizeof(n.label_offset_) + sizeof(n.offsetData_) + sizeof(n.maxlevel_) +
                      sizeof(n.enterpoint_node_) + sizeof(n.maxM_) + sizeof(n.maxM0_) +
                      sizeof(n.M_) + sizeof(n.mult_) + sizeof(n.ef_construction_);
    out += n.cur_element_count * n.size_data_per_element_;
    for (std::size_t i = 0; i < n.cur_element_count; ++i) {
      const auto levels = static_cast<std::size_t>(std::max(n.element_levels_[i], 0));
      out += sizeof(unsigned) + levels * n.size_links_per_element_;
    }
    return out;
  }
  UnitSpace space;
  hnswlib::HierarchicalNSW<float> nodes;
  std::size_t added = 0;
};

KeyShard::KeyShard(std::uint32_t white_dim, std::uint32_t reduced_dim, std::size_t scanned)
    : white_dim_(white_dim), reduced_dim_(reduced_dim), scanned_(scanned), codes_(reduced_dim) {}
KeyShard::~KeyShard() = default;
KeyShard::KeyShard(KeyShard&&) noexcept = default;
KeyShard& KeyShard::operator=(KeyShard&&) noexcept = default;

void KeyShard::add_row(Owner owner, std::span<const std::uint16_t> white,
                       std::span<const float> reduced) {
  rows_of_[owner].push_back(static_cast<std::uint32_t>(owners_.size()));
  white_.insert(white_.end(), white.begin(), white.end());
  reduced_.insert(reduced_.end(), reduced.begin(), reduced.end());
  owners_.push_back(owner);
  if (graph_ == nullptr) codes_.add(reduced);
  ++live_;
}

KeyShard::Method KeyShard::method() const {
  if (graph_ != nullptr) return Method::kGraph;
  return owners_.size() <= kExactKeys ? Method::kExact : Method::kScan;
}

void KeyShard::set(Owner owner, std::span<const std::uint16_t> white,
                   std::span<const float> reduced) {
  MEMSLOT_CHECK(owner != kGone);
  erase(owner);
  if (white_dim_ == 0 || white.empty()) return;
  const std::size_t n = white.size() / white_dim_;
  MEMSLOT_CHECK(white.size() == n * white_dim_ && reduced.size() == n * reduced_dim_);
  for (std::size_t i = 0; i < n; ++i) {
    add_row(owner, white.subspan(i * white_dim_, white_dim_),
            reduced.subspan(i * reduced_dim_, reduced_dim_));
  }
  update_graph();
}

void KeyShard::erase(Owner owner) {
  const auto found = rows_of_.find(owner);
  if (found == rows_of_.end()) return;
  for (const std::uint32_t row : found->second) {
    owners_[row] = kGone;
    forget(row);
  }
  live_ -= found->second.size();
  rows_of_.erase(found);
  if (owners_.size() > 64 && live_ * 2 < owners_.size()) compact();
}

// A key tells what its memory is about: nothing of it stays, neither here nor in what is kept of
// it. In the graph it goes on as a node that is near nothing.
void KeyShard::forget(std::size_t row) {
  std::fill_n(white_.begin() + static_cast<std::ptrdiff_t>(row * white_dim_), white_dim_,
              std::uint16_t{0});
  std::fill_n(reduced_.begin() + static_cast<std::ptrdiff_t>(row * reduced_dim_), reduced_dim_,
              0.0f);
  if (graph_ == nullptr) return codes_.drop(row);
  graph_->nodes.markDelete(row);
  const auto node = graph_->nodes.label_lookup_.at(row);
  std::memset(graph_->nodes.getDataByInternalId(node), 0, reduced_dim_ * sizeof(float));
}

void KeyShard::compact() {
  const Rows<std::uint16_t> white = std::move(white_);
  const Rows<float> reduced = std::move(reduced_);
  const std::vector<Owner> owners = std::move(owners_);
  white_.clear();
  reduced_.clear();
  owners_.clear();
  rows_of_.clear();
  graph_.reset();
  codes_.clear();
  live_ = 0;
  for (std::size_t i = 0; i < owners.size(); ++i) {
    if (owners[i] == kGone) continue;
    add_row(owners[i], std::span(white).subspan(i * white_dim_, white_dim_),
            std::span(reduced).subspan(i * reduced_dim_, reduced_dim_));
  }
  update_graph();
}

void KeyShard::update_graph() {
  if (graph_ == nullptr && owners_.size() <= scanned_) return;
  codes_.clear();
  if (graph_ == nullptr) graph_ = std::make_unique<Graph>(reduced_dim_, owners_.size() * 2);
  if (owners_.size() > graph_->nodes.max_elements_) graph_->nodes.resizeIndex(owners_.size() * 2);
  for (; graph_->added < owners_.size(); ++graph_->added) {
    if (owners_[graph_->added] == kGone) continue;
    graph_->nodes.addPoint(reduced_.data() + graph_->added * reduced_dim_, graph_->added);
  }
}

std::optional<KeyShard::Run> KeyShard::run_of(Owner owner) const {
  const auto found = rows_of_.find(owner);
  if (found == rows_of_.end()) return std::nullopt;
  return Run{owner, found->second.front(), static_cast<std::uint32_t>(found->second.size())};
}

Status KeyShard::save_graph(const std::string& path) const {
  MEMSLOT_CHECK(graph_ != nullptr);
  try {
    graph_->nodes.saveIndex(path);
  } catch (const std::exception& error) {
    return Error{ErrorCode::kIo, path + ": " + error.what()};
  }
  // It does not look whether its writes succeed.
  std::error_code failed;
  const auto written = std::filesystem::file_size(path, failed);
  if (failed || written != graph_->file_bytes()) {
    return Error{ErrorCode::kNoSpace, path + ": expected " + std::to_string(graph_->file_bytes()) +
                                          " bytes, found " +
                                          (failed ? failed.message() : std::to_string(written))};
  }
  return ok();
}

Result<KeyShard> KeyShard::restore(std::uint32_t white_dim, std::uint32_t reduced_dim,
                                   std::span<const std::uint16_t> white,
                                   std::span<const float> reduced, std::span<const Run> runs,
                                   const std::string& graph, std::size_t scanned) {
  const std::size_t rows = white_dim == 0 ? 0 : white.size() / white_dim;
  if (rows == 0 || white.size() != rows * white_dim || reduced.size() != rows * reduced_dim) {
    return corrupt("kept keys", "as many rows of all dimensions as of the reduced ones", "others");
  }
  KeyShard out(white_dim, reduced_dim, scanned);
  out.white_.assign(white.begin(), white.end());
  out.reduced_.assign(reduced.begin(), reduced.end());
  out.owners_.assign(rows, kGone);
  for (const Run& run : runs) {
    const bool within = run.count > 0 && run.first < rows && run.count <= rows - run.first;
    const auto begin = out.owners_.begin() + static_cast<std::ptrdiff_t>(run.first);
    const bool free = within && run.owner != kGone && !out.rows_of_.contains(run.owner) &&
                      std::all_of(begin, begin + static_cast<std::ptrdiff_t>(run.count),
                                  [](Owner owner) { return owner == kGone; });
    if (!free) return corrupt("kept keys", "rows of their own for each memory", "others");
    std::vector<std::uint32_t>& of = out.rows_of_[run.owner];
    for (std::uint32_t row = run.first; row < run.first + run.count; ++row) {
      out.owners_[row] = run.owner;
      of.push_back(row);
    }
    out.live_ += run.count;
  }
  if (!graph.empty()) {
    MEMSLOT_TRY(out.load_graph(graph));
    return out;
  }
  for (std::size_t row = 0; row < rows; ++row) {
    out.codes_.add(reduced.subspan(row * reduced_dim, reduced_dim));
    if (out.owners_[row] == kGone) out.codes_.drop(row);
  }
  out.update_graph();
  return out;
}

// hnswlib checks what it reads for its length only: the caller has compared a digest of it.
Status KeyShard::load_graph(const std::string& path) {
  try {
    graph_ = std::make_unique<Graph>(reduced_dim_, path, owners_.size() * 2);
  } catch (const std::exception& error) {
    return Error{ErrorCode::kCorruption, path + ": " + error.what()};
  }
  graph_->added = owners_.size();
  const auto& labels = graph_->nodes.label_lookup_;
  const bool known = std::all_of(labels.begin(), labels.end(),
                                 [&](const auto& node) { return node.first < owners_.size(); });
  if (!known) return corrupt("kept graph", "rows of the shard", "others");
  for (std::size_t row = 0; row < owners_.size(); ++row) {
    const auto found = labels.find(row);
    const bool linked = found != labels.end() && !graph_->nodes.isMarkedDeleted(found->second);
    if (linked != (owners_[row] != kGone)) {
      return corrupt("kept graph", "the rows that are not gone", "others");
    }
  }
  return ok();
}

// Proposals lie all over the memory: theirs is asked for before it is needed.
void KeyShard::prefetch(std::size_t row) const {
  constexpr std::size_t kLine = 64 / sizeof(std::uint16_t);
  const std::uint16_t* const begin = white_row(row);
  for (std::size_t at = 0; at < white_dim_; at += kLine) __builtin_prefetch(begin + at);
}

float KeyShard::best_key(Owner owner, std::span<const float> white) const {
  MEMSLOT_CHECK(white.size() == white_dim_);
  return best_key(owner, Bf16Product(white));
}

float KeyShard::best_key(Owner owner, const Bf16Product& product) const {
  const auto found = rows_of_.find(owner);
  if (found == rows_of_.end()) return 0;
  float best = -1;
  for (const std::uint32_t row : found->second) best = std::max(best, product(white_row(row)));
  return best;
}

// At least k owners where there are as many, each once; neighbouring keys are often of one memory,
// so more keys are looked at than memories are wanted.
std::vector<KeyShard::Hit> KeyShard::proposals(const Whitened& query, const Bf16Product& product,
                                               std::size_t k) const {
  std::vector<Hit> hits;
  // By row: those of an owner are one behind the other.
  const auto propose = [&](std::size_t row) {
    const Owner owner = owners_[row];
    const float found = product(white_row(row));
    if (hits.empty() || hits.back().owner != owner) {
      hits.push_back({owner, found});
    } else {
      hits.back().best = std::max(hits.back().best, found);
    }
  };
  if (method() == Method::kExact) {
    for (std::size_t row = 0; row < owners_.size(); ++row) {
      if (owners_[row] != kGone) propose(row);
    }
    return hits;
  }
  const std::vector<std::size_t> rows = nearest_rows(query, std::max(kLeastBreadth, 6 * k));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i + kAhead < rows.size()) prefetch(rows[i + kAhead]);
    propose(rows[i]);
  }
  return hits;
}

// By number.
std::vector<std::size_t> KeyShard::nearest_rows(const Whitened& query, std::size_t count) const {
  std::vector<std::size_t> out;
  if (graph_ == nullptr) {
    const auto found = codes_.scan(query.reduced, count);
    for (const auto& [product, row] : found) out.push_back(row);
    return out;
  }
  graph_->nodes.setEf(count);
  auto found = graph_->nodes.searchKnn(query.reduced.data(), count);
  for (; !found.empty(); found.pop()) out.push_back(found.top().second);
  std::sort(out.begin(), out.end());
  return out;
}

void KeyShard::search(const Whitened& query, std::size_t k, std::vector<Hit>& out) const {
  if (live_ == 0 || k == 0) return;
  MEMSLOT_CHECK(query.white.size() == white_dim_ && query.reduced.size() == reduced_dim_);
  const Bf16Product product(query.white);
  std::vector<Hit> hits = proposals(query, product, k);
  // Best first; ties by number, so that the order does not depend on the rows'.
  const auto better = [](const Hit& a, const Hit& b) {
    return a.best != b.best ? a.best > b.best : a.owner < b.owner;
  };
  const auto end = hits.begin() + static_cast<std::ptrdiff_t>(std::min(k, hits.size()));
  std::partial_sort(hits.begin(), end, hits.end(), better);
  if (method() != Method::kExact) {
    const auto completed = std::min(end, hits.begin() + static_cast<std::ptrdiff_t>(kCompleted));
    for (auto hit = hits.begin(); hit != completed; ++hit) {
      hit->best = best_key(hit->owner, product);
    }
    std::sort(hits.begin(), completed, better);
  }
  out.insert(out.end(), hits.begin(), end);
}

}  // namespace memslot
