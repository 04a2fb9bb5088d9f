#include "controller/step/own_keys.h"

#include <algorithm>

#include "shared/base/log.h"

namespace memslot {

const OwnKeys::Own& OwnKeys::get(const Whitening& whitening, const std::string& digest,
                                 const MemoryVersion& version, TimePoint deadline) {
  const Key key{digest, version.ref.ns + "/" + version.ref.id, version.token};
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  Own made;
  const std::size_t w = whitening.white_dim(), r = whitening.reduced_dim();
  const auto keys =
      version.keys == 0 ? Result<MemoryKeys>(MemoryKeys{}) : bank_.load_keys(version, deadline);
  if (!keys) {
    log::warn("{}: compared without its keys: {}", version.ref.text(), keys.error().message);
  } else if (keys.value().dim == whitening.dim()) {
    const std::size_t dim = whitening.dim();
    made.rows.resize(keys.value().rows() * w);
    made.mean.assign(r, 0.0f);
    std::vector<float> reduced(r);
    for (std::size_t row = 0; row < keys.value().rows(); ++row) {
      const std::span out(made.rows.data() + row * w, w);
      whitening.apply({keys.value().values.data() + row * dim, dim}, out);
      whitening.reduce(out, reduced);
      for (std::size_t j = 0; j < r; ++j) made.mean[j] += reduced[j];
    }
    normalise(made.mean);
  }
  values_ += made.rows.size() + made.mean.size();
  return known_[key] = std::move(made);
}

float OwnKeys::Own::best_key(const Whitened& query) const {
  const std::size_t w = query.white.size();
  if (w == 0 || rows.size() % w != 0 || rows.empty()) return 0;
  float best = -1;
  for (std::size_t at = 0; at < rows.size(); at += w) {
    best = std::max(best, dot(rows.data() + at, query.white.data(), w));
  }
  return best;
}

void OwnKeys::score(const Whitening& whitening, const std::string& digest, Queries queries,
                    CandidateList& list, TimePoint deadline) {
  if (values_ > kMostValues) {
    known_.clear();
    values_ = 0;
  }
  for (std::size_t i = 1; i < list.candidates.size(); ++i) {
    const Own& own = get(whitening, digest, *list.versions[i], deadline);
    const std::vector<float>& reduced = queries.now.reduced;
    Candidate& candidate = list.candidates[i];
    candidate.key = own.mean;
    candidate.best_key = own.best_key(queries.now);
    candidate.long_key = own.best_key(queries.longer);
    const bool comparable = !own.mean.empty() && own.mean.size() == reduced.size();
    candidate.mean_key = comparable ? dot(own.mean.data(), reduced.data(), reduced.size()) : 0.0f;
  }
}

}  // namespace memslot
