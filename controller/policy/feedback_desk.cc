#include "controller/policy/feedback_desk.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "controller/policy/episode_recorder.h"
#include "rl/episode_file.h"
#include "rl/features.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kType = "feedback";
constexpr const char* kNamespace = "default";
constexpr std::size_t kPage = 100;

std::size_t bytes_in(const WaitingEpisode& waiting) {
  std::size_t values = 0;
  for (const EpisodeStep& step : waiting.episode.steps) {
    values += step.features.size() + step.query.size() + step.keys.size();
  }
  return values * sizeof(float);
}

Error unknown(std::uint64_t session) {
  return {ErrorCode::kNotFound,
          "feedback: expected a session that wrote with the learned policy and was not judged yet, "
          "found " +
              std::to_string(session)};
}

// 0 and "" where the field is absent or of another type.
std::uint64_t number_in(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string text_in(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

template <class Range>
auto find_session(Range& waiting, std::uint64_t session) {
  return std::find_if(waiting.begin(), waiting.end(),
                      [&](const WaitingEpisode& w) { return w.session == session; });
}

}  // namespace

void FeedbackDesk::put(WaitingEpisode episode) {
  const std::lock_guard lock(mutex_);
  bytes_ += bytes_in(episode);
  waiting_.push_back(std::move(episode));
  while (waiting_.size() > kMostSessions || (bytes_ > kMostBytes && waiting_.size() > 1)) {
    bytes_ -= bytes_in(waiting_.front());
    waiting_.pop_front();
  }
}

Result<WaitingEpisode> FeedbackDesk::take(std::uint64_t session) {
  const std::lock_guard lock(mutex_);
  const auto found = find_session(waiting_, session);
  if (found == waiting_.end()) return unknown(session);
  WaitingEpisode out = std::move(*found);
  waiting_.erase(found);
  bytes_ -= bytes_in(out);
  return out;
}

Result<std::vector<std::string>> FeedbackDesk::namespaces_of(std::uint64_t session) const {
  const std::lock_guard lock(mutex_);
  const auto found = find_session(waiting_, session);
  if (found == waiting_.end()) return unknown(session);
  return found->namespaces;
}

Result<std::string> FeedbackDesk::give(WaitingEpisode& waiting, float value, TimePoint deadline) {
  MEMSLOT_CHECK(value >= -1 && value <= 1);
  Episode judged = waiting.episode;
  for (EpisodeStep& step : judged.steps) {
    if (step.trains) step.reward += kFeedbackNats * value;
  }
  MEMSLOT_TRY(check_episode(judged, feature_count(), waiting.key_dim));
  const std::string name = fmt::format("{:016x}-{:016x}", waiting.session, random_nonce());
  const std::string json = Json({{"session", waiting.session},
                                 {"value", value},
                                 {"created_unix_ms", clock_.unix_ms()},
                                 {"whitening", waiting.space},
                                 {"feature_version", kFeatureVersion},
                                 {"key_dim", waiting.key_dim}})
                               .dump();
  const std::string blob = episode_bytes(judged, feature_count(), waiting.key_dim);
  DocumentDraft draft;
  draft.json = json;
  draft.blob = std::as_bytes(std::span(blob));
  MEMSLOT_TRY(documents_.put(kType, kNamespace, name, draft, deadline));
  waiting.episode = std::move(judged);
  return name;
}

std::vector<FeedbackDesk::Given> FeedbackDesk::given(TimePoint deadline) {
  std::vector<std::pair<std::uint64_t, Given>> found;
  const auto read = [&](const Document& document) -> Status {
    const Json json = Json::parse(document.json, nullptr, false);
    if (!json.is_object() || number_in(json, "feature_version") != kFeatureVersion) {
      return mismatch("feedback's features", kFeatureVersion, document.json.substr(0, 80));
    }
    MEMSLOT_TRY(const auto blob, documents_.load_blob(document, deadline));
    const std::string bytes(reinterpret_cast<const char*>(blob.data()), blob.size());
    const auto key_dim = static_cast<std::uint32_t>(number_in(json, "key_dim"));
    MEMSLOT_TRY(Episode episode, parse_episode(bytes, feature_count(), key_dim));
    found.emplace_back(number_in(json, "created_unix_ms"),
                       Given{document.name, text_in(json, "whitening"), std::move(episode)});
    return ok();
  };
  std::string after;
  do {
    const auto page = documents_.list(kType, kNamespace, after, kPage, deadline);
    if (!page) {
      log::warn("feedback: {}", page.error().message);
      break;
    }
    for (const Document& document : page.value().documents) {
      if (const Status done = read(document); !done) {
        log::warn("feedback {} is left out: {}", document.name, done.error().message);
      }
    }
    after = page.value().next;
  } while (!after.empty());
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Given> out;
  for (auto& [time, given] : found) out.push_back(std::move(given));
  return out;
}

Status FeedbackDesk::used(const std::vector<std::string>& names, TimePoint deadline) {
  for (const std::string& name : names) {
    const auto erased = documents_.erase(kType, kNamespace, name, "", deadline);
    if (!erased && erased.error().code != ErrorCode::kNotFound) return erased;
  }
  return ok();
}

}  // namespace memslot
