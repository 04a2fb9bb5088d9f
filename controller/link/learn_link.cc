#include "controller/link/learn_link.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "controller/link/arguments.h"
#include "controller/link/learners.h"
#include "shared/base/digest.h"
#include "shared/base/json_dump.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"
#include "shared/memory/learn_config.h"

namespace memslot {
namespace {

using Json = nlohmann::ordered_json;

Json progress_json(const wire::LearnProgress& p) {
  return {{"type", "progress"}, {"job", p.job},   {"phase", p.phase},  {"step", p.step},
          {"steps", p.steps},   {"loss", p.loss}, {"recall", p.recall}};
}

// Of a job that waits; `missing`: why nobody could begin it, "" where it only waits for its turn.
Json queued_json(const std::string& job, const std::string& missing) {
  wire::LearnProgress queued;
  queued.job = job;
  queued.phase = "queued";
  Json json = progress_json(queued);
  json["waits"] = missing;
  return json;
}

std::string learned_json(const Job& job, const MemoryVersion* version) {
  Json json = {{"type", "learned"},
               {"job", job.id},
               {"memory", job.target.text()},
               {"branch", job.branch},
               {"message", job.message}};
  // The record's own JSON has the statistics in their documented form.
  if (version != nullptr)
    json["stats"] = Json::parse(to_json(*version)).value("stats", Json::object());
  return dump(json);
}

}  // namespace

LearnLink::LearnLink(Outbox& outbox, PeerTable& peers, JobQueue& jobs, IndexKeeper& keeper)
    : outbox_(outbox),
      peers_(peers),
      jobs_(jobs),
      keeper_(keeper),
      next_request_(random_nonce() | (std::uint64_t{1} << 63)) {}

Result<std::string> LearnLink::start(const Peer& client, std::uint64_t request,
                                     const wire::SubmitTask& task, bool& watch) {
  MEMSLOT_TRY(Arguments arguments, Arguments::parse(task.arguments));
  if (task.kind == "watch") {
    MEMSLOT_TRY(const std::string id, arguments.text("job"));
    MEMSLOT_TRY(arguments.finish());
    const Job* job = jobs_.find(id);
    if (job == nullptr || !client.access.sees(job->target.ns)) return invisible("job " + id);
    return id;
  }
  JobDraft draft;
  MEMSLOT_TRY(draft.text, arguments.text("text"));
  MEMSLOT_TRY(const std::string source, arguments.text("source"));
  MEMSLOT_TRY(const auto ns, arguments.text_if("namespace"));
  MEMSLOT_TRY(const auto id, arguments.text_if("id"));
  MEMSLOT_TRY(draft.config, arguments.object_or("config", "{}"));
  MEMSLOT_TRY(watch, arguments.flag_or("watch", true));
  MEMSLOT_TRY(arguments.finish());
  draft.source = slug(source);
  draft.ns = ns.value_or("default");
  draft.id = id.value_or("");
  MEMSLOT_TRY(const LearnConfig config, learn_config_from_json(draft.config));
  draft.kind = memory_kind_name(config.kind);
  draft.layer = config.layer;
  // Listed with the job, so not in a form from which another could claim to be this process.
  draft.origin = sha256(bytes_of(client.user + " " + std::to_string(client.hello.incarnation) +
                                 ":" + std::to_string(request)))
                     .hex();
  if (!client.access.sees(draft.ns)) return invisible("namespace " + draft.ns);
  if (!jobs_.knows(draft.origin)) {
    MEMSLOT_TRY(check_learners(peers_, draft.ns, config.layer));
  }
  MEMSLOT_TRY(const Job job, jobs_.submit(draft));
  return job.id;
}

std::string LearnLink::missing(const Job& job) const {
  if (job.state != JobState::kQueued) return "";
  return missing_learner(peers_, job.target.ns, job.layer);
}

void LearnLink::submit(const Peer& client, std::uint64_t request, const wire::SubmitTask& task) {
  const Watcher watcher{client.id, request};
  if (watched_.contains(watcher)) return;  // a retry of what is under way
  bool watch = true;
  const auto started = start(client, request, task, watch);
  if (!started) {
    static_cast<void>(outbox_.failure(client.id, request, started.error()));
    return;
  }
  const std::string& id = started.value();
  const Job& job = *jobs_.find(id);
  if (task.kind == "learn") {
    const bool last = !watch;
    Json accepted = {{"type", "job"}, {"job", id}};
    if (std::string waits = missing(job); !waits.empty()) accepted["waits"] = std::move(waits);
    static_cast<void>(outbox_.event(client.id, request, dump(accepted), last));
    if (last) return;
  }
  if (job.finished()) return end(watcher, job, nullptr);
  watchers_[id].insert(watcher);
  watched_[watcher] = id;
  if (job.state == JobState::kQueued) {
    const std::string waits = missing(job);
    told_.try_emplace(id, waits);  // where others watch already, they hear of a change in tick()
    static_cast<void>(
        outbox_.event(client.id, request, dump(queued_json(id, waits)), /*final=*/false));
  }
}

bool LearnLink::unwatch(const PeerId& client, std::uint64_t request) {
  const auto found = watched_.find({client, request});
  if (found == watched_.end()) return false;
  watchers_[found->second].erase(found->first);
  const Error error{ErrorCode::kCancelled, "stopped watching; job " + found->second + " goes on"};
  watched_.erase(found);
  static_cast<void>(outbox_.failure(client, request, error));
  return true;
}

// A watcher that does not read misses progress, never the others' turn; its last event may be lost
// with it, and "watch" gives it again.
void LearnLink::tell(const std::string& job, const std::string& json) {
  const auto found = watchers_.find(job);
  if (found == watchers_.end()) return;
  for (const auto& [client, request] : found->second) {
    static_cast<void>(outbox_.event(client, request, json, /*final=*/false));
  }
}

void LearnLink::end(const Watcher& watcher, const Job& job, const MemoryVersion* version) {
  const auto& [client, request] = watcher;
  const Status sent =
      job.state == JobState::kDone
          ? outbox_.event(client, request, learned_json(job, version), /*final=*/true)
          : outbox_.failure(client, request, {job.code, "job " + job.id + ": " + job.message});
  if (!sent) log::warn("job {}: its watcher was not told: {}", job.id, sent.error().message);
}

void LearnLink::finish(const Job& job, const MemoryVersion* version) {
  // Its result was found in the bank after the fact.
  if (job.state == JobState::kDone && version == nullptr && !job.branch)
    keeper_.changed(job.target);
  const auto found = watchers_.find(job.id);
  if (found == watchers_.end()) return;
  const auto watchers = std::move(found->second);
  watchers_.erase(found);
  told_.erase(job.id);
  for (const Watcher& watcher : watchers) {
    watched_.erase(watcher);
    end(watcher, job, version);
  }
}

bool LearnLink::sees(const Peer& generator, std::string_view id) const {
  const Job* const job = jobs_.find(id);
  return job == nullptr || generator.access.sees(job->target.ns);
}

// In the words for a job that does not exist.
void LearnLink::refuse(const Peer& generator, std::uint64_t request, const std::string& job,
                       std::uint64_t lease) {
  static_cast<void>(outbox_.send(
      generator.id, request,
      wire::LearnAck{.job = job, .lease = lease, .accepted = false, .message = "no such job"}));
}

void LearnLink::progress(const Peer& generator, const wire::LearnProgress& progress) {
  if (!sees(generator, progress.job) || !jobs_.progress(generator.id, progress)) {
    static_cast<void>(
        outbox_.send(generator.id, 0, wire::CancelLearn{progress.job, progress.lease}));
    return;
  }
  told_.erase(progress.job);
  tell(progress.job, dump(progress_json(progress)));
}

void LearnLink::answer(const Peer& generator, std::uint64_t request,
                       const Result<JobQueue::Outcome>& outcome) {
  if (!outcome) {
    log::warn("{}", outcome.error().message);
    return outbox_.error(generator.id, request, outcome.error());
  }
  const JobQueue::Outcome& o = outcome.value();
  static_cast<void>(outbox_.send(generator.id, request, o.ack));
  if (o.published && !o.published->branch) keeper_.changed(o.published->ref);
  if (o.job != nullptr && o.job->finished()) finish(*o.job, o.published ? &*o.published : nullptr);
}

void LearnLink::result(const Peer& generator, std::uint64_t request,
                       const wire::LearnResult& result, const std::vector<SharedBytes>& parts) {
  if (!sees(generator, result.job)) return refuse(generator, request, result.job, result.lease);
  const std::span<const std::byte> keys =
      parts.size() > 1 ? std::span(*parts[1]) : std::span<const std::byte>();
  if (parts.empty()) {
    return outbox_.error(generator.id, request,
                         corrupt("learn result parts", "payload and keys", "none"));
  }
  answer(generator, request, jobs_.result(result, *parts[0], keys));
}

void LearnLink::failed(const Peer& generator, std::uint64_t request,
                       const wire::LearnFailed& failed) {
  if (!sees(generator, failed.job)) return refuse(generator, request, failed.job, failed.lease);
  answer(generator, request, jobs_.failed(failed));
}

Status LearnLink::cancel(std::string_view id, std::string_view why) {
  MEMSLOT_TRY(const auto cancelled, jobs_.cancel(id, why));
  if (!cancelled.holder.empty()) {
    static_cast<void>(
        outbox_.send(cancelled.holder, 0, wire::CancelLearn{std::string(id), cancelled.lease}));
  }
  finish(*jobs_.find(id), nullptr);
  return ok();
}

Status LearnLink::forget(const MemoryRef& ref, std::string_view why) {
  std::vector<std::string> ids;
  for (const Job* job : jobs_.jobs()) {
    const bool same = job->target.ns == ref.ns && job->target.id == ref.id;
    if (same && !job->finished()) ids.push_back(job->id);
  }
  for (const std::string& id : ids) {
    MEMSLOT_TRY(cancel(id, why));
  }
  return jobs_.forget(ref);
}

void LearnLink::generator_lost(const PeerId& generator) {
  for (const Job* job : jobs_.drop_holder(generator)) finish(*job, nullptr);
}

void LearnLink::client_lost(const PeerId& client) {
  std::erase_if(watched_, [&](const auto& item) {
    if (item.first.first != client) return false;
    watchers_[item.second].erase(item.first);
    return true;
  });
}

void LearnLink::rehome(const PeerId& from, const PeerId& to) {
  jobs_.rehome(from, to);
  std::vector<std::pair<Watcher, std::string>> moved;
  for (const auto& [watcher, job] : watched_) {
    if (watcher.first == from) moved.emplace_back(watcher, job);
  }
  for (const auto& [watcher, job] : moved) {
    const Watcher now{to, watcher.second};
    watchers_[job].erase(watcher);
    watchers_[job].insert(now);
    watched_.erase(watcher);
    watched_[now] = job;
  }
}

// Watchers of a job hear of it when what it waits for changes: a generator came that cannot do it
// either, or the one that could has gone.
void LearnLink::tell_what_is_missing() {
  for (const auto& [id, watchers] : watchers_) {
    const Job* const job = watchers.empty() ? nullptr : jobs_.find(id);
    if (job == nullptr || job->state != JobState::kQueued) continue;
    std::string waits = missing(*job);
    std::string& last = told_[id];
    if (waits == last) continue;
    last = std::move(waits);
    tell(id, dump(queued_json(id, last)));
  }
}

void LearnLink::tick() {
  for (const Job* job : jobs_.expire()) finish(*job, nullptr);
  if (jobs_.waiting() == 0) return;
  lease_waiting();
  tell_what_is_missing();
}

void LearnLink::lease_waiting() {
  for (const auto& [id, peer] : peers_.all()) {
    if (!peer.is_generator()) continue;
    while (jobs_.leases(id) < peer.hello.learn_workers) {
      auto leased = jobs_.lease(
          id, [&](const Job& job) { return can_learn(peer, job.target.ns, job.layer); });
      if (!leased) {
        log::warn("learn jobs wait: {}", leased.error().message);
        return;
      }
      if (!leased.value()) break;  // another may see more
      // Refused by the queue: the lease runs out and the job comes again.
      static_cast<void>(outbox_.send(id, ++next_request_, std::move(*leased.value())));
    }
  }
}

}  // namespace memslot
