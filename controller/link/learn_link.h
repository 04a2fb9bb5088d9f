#pragma once
// Learn jobs over the wire: clients submit and watch, generators lease, report and deliver.
//
// Threads: one at a time.
#include <map>
#include <set>
#include <utility>

#include "controller/jobs/job_queue.h"
#include "controller/link/outbox.h"
#include "controller/link/peer_table.h"
#include "controller/step/index_keeper.h"

namespace memslot {

class LearnLink {
 public:
  // Everything must outlive it.
  LearnLink(Outbox& outbox, PeerTable& peers, JobQueue& jobs, IndexKeeper& keeper);

  // "learn" and "watch": answered by events, the last of which waits for the job's end unless
  // `watch` is false.
  void submit(const Peer& client, std::uint64_t request, const wire::SubmitTask& task);
  bool unwatch(const PeerId& client, std::uint64_t request);  // the job goes on

  void progress(const Peer& generator, const wire::LearnProgress& progress);
  void result(const Peer& generator, std::uint64_t request, const wire::LearnResult& result,
              const std::vector<SharedBytes>& parts);
  void failed(const Peer& generator, std::uint64_t request, const wire::LearnFailed& failed);
  // Tells the generator and the watchers.
  Status cancel(std::string_view job, std::string_view why);
  // Ends every job that would make it and forgets those that did. Errors of the bank.
  Status forget(const MemoryRef& ref, std::string_view why);

  // Why a queued job cannot be learned by those who are connected; "" if it is not queued, or only
  // waits for its turn.
  std::string missing(const Job& job) const;

  void generator_lost(const PeerId& generator);
  void client_lost(const PeerId& client);
  void rehome(const PeerId& from, const PeerId& to);
  void tick();  // leases that ran out; new ones to generators with room

 private:
  using Watcher = std::pair<PeerId, std::uint64_t>;  // client, request
  Result<std::string> start(const Peer& client, std::uint64_t request, const wire::SubmitTask& task,
                            bool& watch);
  void lease_waiting();
  void tell_what_is_missing();
  bool sees(const Peer& generator, std::string_view job) const;  // or there is no such job
  void refuse(const Peer& generator, std::uint64_t request, const std::string& job,
              std::uint64_t lease);
  void tell(const std::string& job, const std::string& json);
  void finish(const Job& job, const MemoryVersion* version);
  void end(const Watcher& watcher, const Job& job, const MemoryVersion* version);
  void answer(const Peer& generator, std::uint64_t request,
              const Result<JobQueue::Outcome>& outcome);

  Outbox& outbox_;
  PeerTable& peers_;
  JobQueue& jobs_;
  IndexKeeper& keeper_;
  std::uint64_t next_request_;  // from a random place: never a task's number (relay.h)
  std::map<std::string, std::set<Watcher>, std::less<>> watchers_;  // by job
  std::map<Watcher, std::string> watched_;                          // the same, backwards
  std::map<std::string, std::string, std::less<>> told_;  // by watched job: what was missing last
};

}  // namespace memslot
