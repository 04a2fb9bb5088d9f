// The life of a lease: given, renewed, ended by its result or for want of one.
#include <algorithm>
#include <cstring>
#include <utility>

#include "controller/jobs/job_queue.h"
#include "shared/base/log.h"
#include "storage/key_block.h"

namespace memslot {
namespace {

constexpr int kTries = 3;  // of a publish whose outcome is unknown

// What another attempt cannot mend.
bool is_permanent(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kCorruption:
    case ErrorCode::kMismatch:
    case ErrorCode::kNotSupported:
    case ErrorCode::kPermission: return true;
    case ErrorCode::kNoSpace:  // somebody will make room; the training is worth the wait
    case ErrorCode::kConflict:
    case ErrorCode::kIndeterminate:
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimeout:
    case ErrorCode::kOverloaded:
    case ErrorCode::kBusy:
    case ErrorCode::kIo:
    case ErrorCode::kCancelled:
    case ErrorCode::kInternal: return false;
  }
  return false;
}

// Damage to the one job or its memory; what is everyone's passes.
bool is_unreadable(ErrorCode code) { return code != ErrorCode::kPermission && is_permanent(code); }

Result<MemoryKeys> parse_keys(std::span<const std::byte> bytes, const SlotSignature& signature) {
  MemoryKeys keys;
  if (bytes.empty()) return keys;
  const auto row = static_cast<std::size_t>(std::max(signature.d_model, 1)) * sizeof(float);
  if (bytes.size() % row != 0)
    return corrupt("key bytes", "whole rows of " + std::to_string(row), bytes.size());
  keys.dim = static_cast<std::uint32_t>(signature.d_model);
  keys.values.resize(bytes.size() / sizeof(float));
  std::memcpy(keys.values.data(), bytes.data(), bytes.size());
  if (const auto checked = check_keys(keys); !checked) {
    return Error{ErrorCode::kCorruption, checked.error().message};
  }
  return keys;
}

JobQueue::Outcome refuse(const std::string& job, std::uint64_t lease, std::string why) {
  JobQueue::Outcome out;
  out.ack = {.job = job, .lease = lease, .accepted = false, .message = std::move(why)};
  return out;
}

}  // namespace

Result<std::optional<wire::AssignLearn>> JobQueue::lease(const PeerId& holder, const Can& can) {
  std::vector<const MemoryRef*> busy;
  for (const auto& [id, entry] : entries_) {
    if (entry.job.state == JobState::kLeased) busy.push_back(&entry.job.target);
  }
  const TimePoint now = clock_.now();
  const auto waits = [&](const Entry& e) {
    const auto same = [&](const MemoryRef* t) {
      return t->ns == e.job.target.ns && t->id == e.job.target.id;
    };
    return e.job.state == JobState::kQueued && e.not_before <= now && (!can || can(e.job)) &&
           std::none_of(busy.begin(), busy.end(), same);
  };
  for (auto& [id, entry] : entries_) {
    if (!waits(entry)) continue;
    auto leased = lease_job(entry, holder);
    if (!leased && !is_unreadable(leased.error().code)) return leased.error();
    if (!leased) {
      end_unreadable(entry, leased.error());
    } else if (leased.value()) {
      return leased;
    }
  }
  return std::optional<wire::AssignLearn>();
}

// One job that is damaged must not hold up those after it.
void JobQueue::end_unreadable(Entry& entry, const Error& error) {
  log::error("job {}: {}", entry.job.id, error.message);
  Job job = entry.job;
  job.state = JobState::kFailed;
  job.code = error.code;
  job.message = error.message;
  if (const auto saved = save(entry, std::move(job)); !saved) {
    log::error("{}: it waits", saved.error().message);
    entry.not_before = clock_.now() + options_.lease;
    return;
  }
  ended_.push_back(entry.job.id);
}

// None: it is learned already, by a lease whose result was published but could not be noted.
Result<std::optional<wire::AssignLearn>> JobQueue::lease_job(Entry& entry, const PeerId& holder) {
  if (entry.job.lease > 0) {
    MEMSLOT_TRY(settle(entry));
    if (entry.job.finished()) {
      ended_.push_back(entry.job.id);
      return std::optional<wire::AssignLearn>();
    }
  }
  MEMSLOT_TRY(std::string text, text_of(entry));
  Job job = entry.job;
  job.expected.clear();
  const auto head = bank_.head(job.target, soon());
  if (head) job.expected = head.value().token;
  if (!head && head.error().code != ErrorCode::kNotFound) return head.error();
  job.state = JobState::kLeased;
  ++job.lease;
  MEMSLOT_TRY(save(entry, std::move(job)));
  entry.holder = holder;
  entry.expires = clock_.now() + options_.lease;
  const Job& j = entry.job;
  return std::optional<wire::AssignLearn>(wire::AssignLearn{.job = j.id,
                                                            .lease = j.lease,
                                                            .ns = j.target.ns,
                                                            .source = j.source,
                                                            .text = std::move(text),
                                                            .config = j.config,
                                                            .target = j.target,
                                                            .expected = j.expected});
}

bool JobQueue::progress(const PeerId& holder, const wire::LearnProgress& progress) {
  Entry* const e = entry(progress.job);
  if (e == nullptr || e->job.state != JobState::kLeased || e->job.lease != progress.lease)
    return false;
  e->holder = holder;
  e->expires = clock_.now() + options_.lease;
  return true;
}

Result<PublishedMemory> JobQueue::publish(const Entry& entry, const wire::LearnResult& result,
                                          std::span<const std::byte> payload,
                                          std::span<const std::byte> key_bytes) {
  const MemoryRef& named = result.version.ref;
  const MemoryRef& target = entry.job.target;
  if (named.ns != target.ns || named.id != target.id) {
    return mismatch("memory of the result", target.text(), named.text());
  }
  MEMSLOT_TRY(const MemoryKeys keys, parse_keys(key_bytes, result.version.signature));
  MEMSLOT_TRY(const std::string text, text_of(entry));
  MemoryDraft draft;
  draft.meta = result.version;
  draft.meta.ref = target;
  draft.meta.token = entry.job.token();
  draft.meta.source = entry.job.source;
  draft.meta.origin = VersionOrigin::kLearned;
  draft.meta.origin_id = entry.job.token();
  draft.meta.created_unix_ms = clock_.unix_ms();
  draft.payload = payload;
  draft.keys = keys.rows() > 0 ? &keys : nullptr;
  draft.source_text = text;
  draft.expected = entry.job.expected;
  auto published = bank_.publish_memory(draft, soon());
  for (int i = 1; i < kTries && !published; ++i) {
    if (published.error().code != ErrorCode::kIndeterminate) break;
    published = bank_.publish_memory(draft, soon());
  }
  return published;
}

Status JobQueue::finish(Entry& entry, const MemoryVersion& version) {
  Job job = entry.job;
  job.state = JobState::kDone;
  job.target.version = version.ref.version;
  job.branch = version.branch;
  if (version.branch) job.message = "the memory changed meanwhile: the result was kept as a branch";
  return save(entry, std::move(job));
}

Result<JobQueue::Outcome> JobQueue::result(const wire::LearnResult& result,
                                           std::span<const std::byte> payload,
                                           std::span<const std::byte> key_bytes) {
  Entry* const e = entry(result.job);
  if (e == nullptr) return refuse(result.job, result.lease, "no such job");
  Outcome out = refuse(result.job, result.lease, "");
  out.job = &e->job;
  if (e->job.state == JobState::kDone && e->job.lease == result.lease) {
    out.ack.accepted = true;  // its acknowledgement was lost
    const auto made = bank_.version_of_token(e->job.target, e->job.token(), soon());
    if (made) out.published = made.value();
    return out;
  }
  if (e->job.state != JobState::kLeased || e->job.lease != result.lease) {
    out.ack.message = "the lease was given up: the job is " +
                      std::string(job_state_name(e->job.state)) + ", its newest lease " +
                      std::to_string(e->job.lease);
    return out;
  }
  const auto published = publish(*e, result, payload, key_bytes);
  if (!published) {
    const Error error = published.error().with_context("result of job " + result.job);
    if (!is_permanent(error.code)) {
      e->expires = clock_.now() + options_.lease;  // it holds the result and sends it again
      return error;
    }
    give_up_lease(*e, error.code, error.message, /*generator_lost=*/false);
    out.ack.message = error.message;
    return out;
  }
  if (const auto noted = finish(*e, published.value().version); !noted) {
    e->expires = clock_.now() + options_.lease;
    return noted.error();
  }
  out.ack.accepted = true;
  out.ack.message = e->job.message;
  out.published = published.value().version;
  return out;
}

Result<JobQueue::Outcome> JobQueue::failed(const wire::LearnFailed& failed) {
  Entry* const e = entry(failed.job);
  if (e == nullptr) return refuse(failed.job, failed.lease, "no such job");
  Outcome out = refuse(failed.job, failed.lease, "");
  out.job = &e->job;
  out.ack.accepted = e->job.state == JobState::kLeased && e->job.lease == failed.lease;
  if (!out.ack.accepted) {
    out.ack.message = "the lease was given up";
    return out;
  }
  // A generator that stops or is cut off says nothing about the job.
  const bool lost = failed.code == ErrorCode::kCancelled ||
                    failed.code == ErrorCode::kUnavailable || failed.code == ErrorCode::kTimeout;
  give_up_lease(*e, failed.code, failed.message, lost);
  return out;
}

// Back to the queue while attempts are left. Should the bank refuse to note it, the lease stays and
// is given up again when it runs out.
void JobQueue::give_up_lease(Entry& entry, ErrorCode code, const std::string& why,
                             bool generator_lost) {
  // Its result may be in the bank though that could not be noted: then the job is done.
  const auto settled = settle(entry);
  if (!settled && !is_permanent(settled.error().code)) {
    log::error("{}: its lease stays for now", settled.error().message);
    entry.expires = clock_.now() + options_.lease;
    return;
  }
  if (entry.job.finished()) return entry.holder.clear();
  Job job = entry.job;
  generator_lost ? ++job.lost : ++job.failed;
  const bool over = job.lost > options_.max_lost || job.failed >= options_.max_failed ||
                    (!generator_lost && is_permanent(code));
  job.state = over ? JobState::kFailed : JobState::kQueued;
  job.code = code;
  job.message = why;
  const auto saved = save(entry, std::move(job));
  if (!saved) {
    log::error("{}: its lease stays for now", saved.error().message);
    entry.expires = clock_.now() + options_.lease;
    return;
  }
  entry.holder.clear();
  const auto attempts = static_cast<std::int64_t>(entry.job.failed + entry.job.lost);
  entry.not_before = clock_.now() + options_.retry_pause * std::min<std::int64_t>(attempts, 10);
  log::info("job {}: {} after lease {}: {}", entry.job.id, job_state_name(entry.job.state),
            entry.job.lease, why);
}

std::vector<const Job*> JobQueue::expire() {
  std::vector<const Job*> out;
  const TimePoint now = clock_.now();
  std::vector<std::string> due;
  const std::vector<std::string> ended = std::exchange(ended_, {});
  for (const auto& [id, e] : entries_) {
    if (e.job.state == JobState::kLeased && e.expires <= now) due.push_back(id);
  }
  forget_old();
  for (const std::string& id : ended) {
    if (const Job* job = find(id)) out.push_back(job);
  }
  for (const std::string& id : due) {
    Entry& e = entries_.at(id);
    give_up_lease(e, ErrorCode::kTimeout, "the generator was not heard of within the lease", true);
    if (e.job.finished()) out.push_back(&e.job);
  }
  return out;
}

void JobQueue::excuse(Duration gap) {
  for (auto& [id, e] : entries_) {
    if (e.job.state == JobState::kLeased) e.expires += gap;
  }
}

std::vector<const Job*> JobQueue::drop_holder(const PeerId& holder) {
  std::vector<const Job*> out;
  std::vector<std::string> held;
  for (const auto& [id, e] : entries_) {
    if (e.job.state == JobState::kLeased && e.holder == holder) held.push_back(id);
  }
  for (const std::string& id : held) {
    Entry& e = entries_.at(id);
    give_up_lease(e, ErrorCode::kUnavailable, "the generator was lost", /*generator_lost=*/true);
    if (e.job.finished()) out.push_back(&e.job);
  }
  return out;
}

}  // namespace memslot
