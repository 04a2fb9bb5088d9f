#include "controller/jobs/job_queue.h"

#include <algorithm>
#include <cstring>

#include "shared/base/log.h"

namespace memslot {
namespace {

constexpr std::string_view kType = "job";
constexpr std::string_view kNamespace = "all";
constexpr auto kBankTime = std::chrono::seconds(10);
constexpr int kTries = 3;  // of a write whose outcome is unknown

std::uint64_t& at(JobCounts& counts, JobState state) {
  return counts[static_cast<std::size_t>(state) - 1];
}

std::string memory_id(const JobDraft& draft) {
  if (!draft.id.empty()) return draft.id;
  return slug(draft.kind.empty() ? draft.source : draft.source + "-" + draft.kind);
}

}  // namespace

JobQueue::JobQueue(DocumentBank& documents, MemoryBank& bank, const Clock& clock,
                   JobOptions options)
    : documents_(documents), bank_(bank), clock_(clock), options_(options) {}

TimePoint JobQueue::soon() const { return deadline_in(clock_, kBankTime); }

JobQueue::Entry* JobQueue::entry(std::string_view id) {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : &found->second;
}

const Job* JobQueue::find(std::string_view id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : &found->second.job;
}

std::vector<const Job*> JobQueue::jobs() const {
  std::vector<const Job*> out;
  for (const auto& [id, entry] : entries_) out.push_back(&entry.job);
  return out;
}

// The bank first, memory after it: what is answered is what would be found after a crash.
Status JobQueue::save(Entry& entry, Job changed) {
  const std::string json = to_json(changed);
  DocumentDraft draft;
  draft.expected = entry.document;
  draft.json = json;
  draft.keep_blob = !changed.finished();  // the text is of no use to a finished job
  draft.token = new_token(clock_);
  draft.keep = 1;
  auto stored = documents_.put(kType, kNamespace, changed.id, draft, soon());
  for (int i = 1; i < kTries && !stored && stored.error().code == ErrorCode::kIndeterminate; ++i) {
    stored = documents_.put(kType, kNamespace, changed.id, draft, soon());
  }
  if (!stored && stored.error().code == ErrorCode::kConflict) {
    // Nobody else writes jobs: an earlier write of ours came through although it was said to fail.
    MEMSLOT_TRY(const auto now, documents_.get(kType, kNamespace, changed.id, soon()));
    draft.expected = now.token;
    stored = documents_.put(kType, kNamespace, changed.id, draft, soon());
  }
  if (!stored) return stored.error().with_context("job " + changed.id);
  entry.document = stored.value().token;
  if (changed.state != entry.job.state) ++at(entered_, changed.state);
  entry.job = std::move(changed);
  if (entry.job.finished() && !entry.text.empty()) {
    // Failing this, garbage collection removes it later.
    static_cast<void>(bank_.store().erase_payload(entry.text, soon()));
    entry.text.clear();
  }
  return ok();
}

Status JobQueue::load() {
  std::string after;
  do {
    MEMSLOT_TRY(auto page, documents_.list(kType, kNamespace, after, 1000, soon()));
    for (Document& document : page.documents) {
      auto job = job_from_json(document.json);
      if (!job) {
        log::warn("job {}: left alone: {}", document.name, job.error().message);
        continue;
      }
      Entry loaded;
      loaded.job = std::move(job).value();
      loaded.document = document.token;
      loaded.text = document.blob_token;
      loaded.expires = clock_.now() + options_.lease;
      entries_[document.name] = std::move(loaded);
    }
    after = page.next;
  } while (!after.empty());
  for (auto& [id, entry] : entries_) {
    if (entry.job.state == JobState::kLeased) {
      // Asked again when the lease ends.
      if (const auto settled = settle(entry); !settled)
        log::warn("job {}: {}", id, settled.error().message);
    }
  }
  return ok();
}

// Ends a leased job whose result is in the bank already.
Status JobQueue::settle(Entry& entry) {
  const auto made = bank_.version_of_token(entry.job.target, entry.job.token(), soon());
  if (made) return finish(entry, made.value());
  if (made.error().code == ErrorCode::kNotFound) return ok();
  return made.error();
}

Result<Job> JobQueue::submit(const JobDraft& draft) {
  if (!draft.origin.empty()) {
    for (const auto& [id, entry] : entries_) {
      if (entry.job.origin == draft.origin) return entry.job;
    }
  }
  Job job;
  job.target.ns = draft.ns;
  job.target.id = memory_id(draft);
  MEMSLOT_TRY(check_name("namespace", job.target.ns));
  MEMSLOT_TRY(check_name("source", draft.source));
  MEMSLOT_TRY(check_name("id", job.target.id));
  if (draft.text.empty()) return invalid("text of " + draft.source, "at least one word", "none");
  if (draft.text.size() > kMaxBlobBytes)
    return invalid("text bytes", kMaxBlobBytes, draft.text.size());
  if (waiting() >= options_.max_waiting) {
    return Error{ErrorCode::kOverloaded, "learn jobs: expected at most " +
                                             std::to_string(options_.max_waiting) +
                                             " waiting, found as many"};
  }
  job.id = new_token(clock_);
  job.source = draft.source;
  job.config = draft.config;
  job.layer = draft.layer;
  job.origin = draft.origin;
  job.created_unix_ms = clock_.unix_ms();
  const std::string json = to_json(job);
  DocumentDraft document;
  document.json = json;
  document.blob = bytes_of(draft.text);
  document.token = new_token(clock_);
  auto stored = documents_.put(kType, kNamespace, job.id, document, soon());
  for (int i = 1; i < kTries && !stored && stored.error().code == ErrorCode::kIndeterminate; ++i) {
    stored = documents_.put(kType, kNamespace, job.id, document, soon());
  }
  if (!stored) return stored.error().with_context("learn job");
  ++at(entered_, job.state);
  Entry& entry = entries_[job.id];
  entry.job = job;
  entry.document = stored.value().token;
  entry.text = stored.value().blob_token;
  return job;
}

bool JobQueue::knows(std::string_view origin) const {
  return !origin.empty() && std::any_of(entries_.begin(), entries_.end(), [&](const auto& item) {
    return item.second.job.origin == origin;
  });
}

Result<std::string> JobQueue::text_of(const Entry& entry) {
  MEMSLOT_TRY(const auto document, documents_.get(kType, kNamespace, entry.job.id, soon()));
  MEMSLOT_TRY(const auto blob, documents_.load_blob(document, soon()));
  std::string text(blob.size(), '\0');
  std::memcpy(text.data(), blob.data(), blob.size());
  return text;
}

Result<JobQueue::Cancelled> JobQueue::cancel(std::string_view id, std::string_view why) {
  Entry* const e = entry(id);
  if (e == nullptr) {
    return Error{ErrorCode::kNotFound,
                 "job: expected one that exists, found none named " + std::string(id)};
  }
  if (e->job.finished()) {
    return Error{ErrorCode::kConflict, "job " + std::string(id) +
                                           ": expected one that is not finished, found it " +
                                           std::string(job_state_name(e->job.state))};
  }
  Cancelled out{.holder = e->holder, .lease = e->job.lease};
  Job job = e->job;
  job.state = JobState::kCancelled;
  job.code = ErrorCode::kCancelled;
  job.message = std::string(why);
  MEMSLOT_TRY(save(*e, std::move(job)));
  e->holder.clear();
  return out;
}

void JobQueue::rehome(const PeerId& from, const PeerId& to) {
  for (auto& [id, entry] : entries_) {
    if (entry.holder == from) entry.holder = to;
  }
}

// Ids sort by time. Failing to erase one costs nothing but its place.
void JobQueue::forget_old() {
  std::size_t finished = static_cast<std::size_t>(
      std::count_if(entries_.begin(), entries_.end(),
                    [](const auto& item) { return item.second.job.finished(); }));
  for (auto it = entries_.begin(); it != entries_.end() && finished > options_.keep_finished;) {
    const auto old = it++;
    if (!old->second.job.finished()) continue;
    const auto erased = documents_.erase(kType, kNamespace, old->first, "", soon());
    if (!erased) return;
    entries_.erase(old);
    --finished;
  }
}

// The texts first: after a crash in between, the documents still name what is to be erased.
Status JobQueue::forget(const MemoryRef& ref) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto old = it++;
    const MemoryRef& target = old->second.job.target;
    if (target.ns != ref.ns || target.id != ref.id) continue;
    const auto versions = documents_.history(kType, kNamespace, old->first, soon());
    const bool lasting = versions || versions.error().code == ErrorCode::kNotFound ||
                         versions.error().code == ErrorCode::kCorruption;
    if (!lasting) return versions.error();
    if (versions) {
      for (const Document& version : versions.value()) {
        if (version.blob_token.empty()) continue;
        MEMSLOT_TRY(bank_.store().erase_payload(version.blob_token, soon()));
      }
    }
    const auto erased = documents_.erase(kType, kNamespace, old->first, "", soon());
    if (!erased && erased.error().code != ErrorCode::kNotFound) return erased;
    entries_.erase(old);
  }
  return ok();
}

std::size_t JobQueue::waiting() const {
  return static_cast<std::size_t>(
      std::count_if(entries_.begin(), entries_.end(),
                    [](const auto& item) { return !item.second.job.finished(); }));
}

std::size_t JobQueue::leases(const PeerId& holder) const {
  const auto held = [&](const auto& item) {
    return item.second.job.state == JobState::kLeased && item.second.holder == holder;
  };
  return static_cast<std::size_t>(std::count_if(entries_.begin(), entries_.end(), held));
}

JobCounts JobQueue::count_by_state() const {
  JobCounts out{};
  for (const auto& [id, entry] : entries_) ++at(out, entry.job.state);
  return out;
}

}  // namespace memslot
