#include "controller/step/candidates.h"

#include <algorithm>

#include "shared/base/rng.h"

namespace memslot {
namespace {

// Policies swap parameters that any session may share; a stateful memory belongs to its session.
bool may_be_swapped(MemoryKind kind) { return is_implemented(kind) && !is_stateful(kind); }

class ListBuilder {
 public:
  ListBuilder(const CandidateIndex& index, const CandidateRequest& request)
      : index_(index), request_(request) {
    Candidate base;
    base.is_base = true;
    base.is_current = request.current.id.empty();
    base.swap_cost = base.is_current ? 0.0f : request.swap_cost;
    out_.candidates.push_back(base);
    out_.versions.push_back(nullptr);
  }

  void add(const CandidateIndex::Hit& hit) {
    if (!may_be_swapped(hit.memory->version.signature.kind)) return;
    add(hit.memory->version, hit);
  }

  void add(const MemoryVersion& version, const CandidateIndex::Hit& hit) {
    if (out_.candidates.size() >= request_.limit || listed(version.ref)) return;
    Candidate c;
    c.ref = version.ref;
    c.kind = version.signature.kind;
    c.is_current = version.ref == request_.current;
    c.resident = request_.session.residents.set.contains({request_.slot, version.ref});
    c.best_key = hit.best_key;
    c.mean_key = hit.mean_key;
    c.swap_cost = c.is_current ? 0.0f : request_.swap_cost;
    if (hit.memory != nullptr) {
      c.key = hit.memory->mean_key;
      c.past_net_gain = static_cast<float>(hit.memory->mean_net_gain);
      c.uses = hit.memory->uses;
      c.age = index_.publishes() - hit.memory->published;
    }
    out_.candidates.push_back(std::move(c));
    out_.versions.push_back(&version);
  }

  CandidateList take() { return std::move(out_); }

 private:
  bool listed(const MemoryRef& ref) const {
    return std::any_of(out_.candidates.begin(), out_.candidates.end(),
                       [&](const Candidate& c) { return c.ref == ref; });
  }

  const CandidateIndex& index_;
  const CandidateRequest& request_;
  CandidateList out_;
};

void add_current(const CandidateIndex& index, const CandidateRequest& request, ListBuilder& list) {
  const MemoryRef& current = request.current;
  if (current.id.empty() || !request.session.sees(current.ns)) return;
  const IndexedMemory* memory = index.find(current.ns, current.id);
  if (memory == nullptr || SpaceKey::of(memory->version.signature) != request.space) return;
  list.add(index.score(*memory, request.query));
}

void add_wanted(const CandidateIndex& index, const CandidateRequest& request, ListBuilder& list) {
  const auto& wanted = request.session.wanted;
  if (!wanted || SpaceKey::of(wanted->signature) != request.space) return;
  // Erased since the session opened: gone for it, too.
  const IndexedMemory* memory = index.find(wanted->ref.ns, wanted->ref.id);
  if (memory != nullptr) list.add(*wanted, index.score(*memory, request.query));
}

// Before the first summary there is nothing to be near to: a run of the members from a place that
// depends on the session's seed only.
void add_drawn(const CandidateIndex& index, const CandidateRequest& request, ListBuilder& list) {
  const auto& open = request.session.open;
  const auto members = index.members(request.space, open.namespaces);
  if (members.empty()) return;
  const std::uint64_t from = uniform_below(members.size(), open.seed, ~open.session, request.step);
  const std::size_t count = std::min(members.size(), request.limit);
  for (std::size_t i = 0; i < count; ++i) {
    list.add(index.score(*members[(from + i) % members.size()], {}));
  }
}

}  // namespace

CandidateList make_candidates(const CandidateIndex& index, const CandidateRequest& request) {
  ListBuilder list(index, request);
  add_current(index, request, list);
  add_wanted(index, request, list);
  if (request.query.empty()) {
    if (request.draw) add_drawn(index, request, list);
    return list.take();
  }
  const auto& namespaces = request.session.open.namespaces;
  for (const auto& hit : index.nearest(request.space, namespaces, request.query, request.limit)) {
    list.add(hit);
  }
  return list.take();
}

}  // namespace memslot
