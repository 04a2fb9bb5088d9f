#pragma once
// Learn jobs, durable and exactly once.
//
// Operation:   submit() returns once the job is in the bank. lease() hands the oldest waiting job
//              to a generator, under a number that is in the bank before the generator hears of it;
//              progress() renews. A lease ends by result(), failed(), cancel(), time or the loss of
//              its generator; then its number is fenced off: a late result is refused.
// Exactly once: a result is published under the token "<job>:<lease>". Should the controller die
//              between publishing and noting it, load() finds that token in the bank and ends the
//              job.
// Order:       first submitted, first leased; one lease at a time for one memory.
// Limits:      max_waiting jobs that are not finished; the last keep_finished finished ones stay.
// Concurrency: one thread. Writes are synchronous (a few milliseconds each, three a job).
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "controller/jobs/job.h"
#include "shared/transport/channel.h"
#include "shared/wire/messages_learn.h"
#include "storage/document_bank.h"
#include "storage/memory_bank.h"

namespace memslot {

struct JobOptions {
  Duration lease = std::chrono::seconds(30);
  std::uint32_t max_failed = 3;
  std::uint32_t max_lost = 32;
  Duration retry_pause = std::chrono::milliseconds(500);  // times the attempts so far
  std::size_t max_waiting = 10000;
  std::size_t keep_finished = 1000;
};

struct JobDraft {
  std::string ns = "default";
  std::string source;
  std::string id;    // "": made from source and kind
  std::string kind;  // for that id
  std::string text;
  std::string config;  // JSON
  int layer = -1;      // the slot layer that it names; -1: any
  std::string origin;
};

class JobQueue {
 public:
  // Everything must outlive the queue.
  JobQueue(DocumentBank& documents, MemoryBank& bank, const Clock& clock, JobOptions options = {});

  // Reads the bank; leases go on where they were, for a lease's time. A job whose result is already
  // published is done. A document that cannot be read is left alone (and logged).
  Status load();

  // kInvalidArgument (names, empty text, too long), kOverloaded, kNoSpace and other errors of the
  // bank. A draft whose origin is known returns its job.
  Result<Job> submit(const JobDraft& draft);
  const Job* find(std::string_view id) const;  // null if unknown
  bool knows(std::string_view origin) const;   // a job of this origin, unless it is ""
  std::vector<const Job*> jobs() const;        // by id: oldest first

  // The next job for this generator, if one waits. Errors of the bank leave it
  // waiting, but a job that cannot be read fails.
  // `can`: which jobs it may see and could do; empty: all.
  using Can = std::function<bool(const Job& job)>;
  Result<std::optional<wire::AssignLearn>> lease(const PeerId& holder, const Can& can = {});
  // False: the lease is fenced off, the generator should stop.
  bool progress(const PeerId& holder, const wire::LearnProgress& progress);

  struct Outcome {
    wire::LearnAck ack;
    std::optional<MemoryVersion> published;  // by this call or an earlier one of the same lease
    const Job* job = nullptr;                // null if unknown
  };
  // Publishes. A result that names another memory than the job's, or is damaged, ends the job.
  // Errors (kIndeterminate, kTimeout, kIo, ...) leave the lease: the generator retries.
  Result<Outcome> result(const wire::LearnResult& result, std::span<const std::byte> payload,
                         std::span<const std::byte> keys);
  Result<Outcome> failed(const wire::LearnFailed& failed);

  // kNotFound; kConflict if it is finished. The holder of its lease, "" if none, should be told.
  struct Cancelled {
    PeerId holder;
    std::uint64_t lease = 0;
  };
  Result<Cancelled> cancel(std::string_view id, std::string_view why);

  // Everything about the jobs that would make, or made, this memory, their texts included; what
  // their generators send afterwards is refused. Errors of the bank: call it again.
  Status forget(const MemoryRef& ref);

  // Leases that ran out, or whose generator is lost: back to the queue, or failed for good; done
  // where the result turns out to be in the bank. The jobs that ended, here or in lease().
  std::vector<const Job*> expire();
  std::vector<const Job*> drop_holder(const PeerId& holder);
  void rehome(const PeerId& from, const PeerId& to);
  void excuse(Duration gap);  // for so long nobody was listened to: leases run so much longer

  std::size_t waiting() const;  // queued or leased
  std::size_t leases(const PeerId& holder) const;
  JobCounts count_by_state() const;
  // How often a job came into each state since the start; queued: also when a lease gave it back.
  const JobCounts& entered() const { return entered_; }

 private:
  struct Entry {
    Job job;
    std::string document;    // token of the stored document
    std::string text;        // token of its text; "" once the job is finished
    PeerId holder;           // "" after a restart, until it is heard of
    TimePoint expires{};     // of the lease
    TimePoint not_before{};  // of the next one
  };
  TimePoint soon() const;
  Entry* entry(std::string_view id);
  Status save(Entry& entry, Job changed);
  void give_up_lease(Entry& entry, ErrorCode code, const std::string& why, bool generator_lost);
  void forget_old();
  Result<std::string> text_of(const Entry& entry);
  Result<PublishedMemory> publish(const Entry& entry, const wire::LearnResult& result,
                                  std::span<const std::byte> payload,
                                  std::span<const std::byte> key_bytes);
  Status finish(Entry& entry, const MemoryVersion& version);
  Status settle(Entry& entry);
  void end_unreadable(Entry& entry, const Error& error);
  Result<std::optional<wire::AssignLearn>> lease_job(Entry& entry, const PeerId& holder);

  DocumentBank& documents_;
  MemoryBank& bank_;
  const Clock& clock_;
  const JobOptions options_;
  std::map<std::string, Entry, std::less<>> entries_;  // by id
  std::vector<std::string> ended_;                     // in lease(); expire() says so
  JobCounts entered_{};
};

}  // namespace memslot
