#pragma once
// Tasks that a generator answers (generate, score, tokenize, attest, status, bench, gains): handed
// to the least loaded one, its events passed on to the client.
//
//   client                    controller                   generator
//   SubmitTask(request) ----> number, namespaces ----> AssignTask(task)
//   TaskEvent(request)  <---- same JSON            <---- TaskEvent(task) ... final
//
// A task ends with its final event, with kUnavailable when its generator is lost or comes back over
// a new connection (events may be missing), with kOverloaded when its client does not read its
// events (the others go on). What a client may not see looks absent. A task submitted again after
// its end is told its last event again; the last few hundred are remembered.
//
// Threads: one at a time.
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "controller/link/outbox.h"
#include "controller/link/peer_table.h"

namespace memslot {

class Relay {
 public:
  // Both must outlive the relay.
  Relay(Outbox& outbox, PeerTable& peers);

  static bool handles(std::string_view kind);
  // Answers by events only. `extra_load`: what a generator does beside tasks.
  template <class Load>
  void submit(const Peer& client, std::uint64_t request, const wire::SubmitTask& task,
              const Load& extra_load) {
    const Peer* best = nullptr;
    std::size_t least = 0;
    for (const auto& [id, peer] : peers_.all()) {
      if (!peer.is_generator()) continue;
      const std::size_t load = tasks_of(id) + extra_load(peer);
      if (best == nullptr || load < least) {
        best = &peer;
        least = load;
      }
    }
    submit_to(best, client, request, task);
  }
  void event(const Peer& generator, wire::TaskEvent event);
  // The generator would not take it. Nothing happens if `number` is no task of its.
  void refused(const Peer& generator, std::uint64_t number, const Error& error);
  // False: no such task (it may be of another kind).
  bool cancel(const PeerId& client, std::uint64_t request);

  void generator_lost(const PeerId& generator, const std::string& why);
  void client_lost(const PeerId& client);
  void rehome_client(const PeerId& from, const PeerId& to);
  void retry_failures();  // last words to clients whose queue was full

  std::size_t tasks_of(const PeerId& generator) const;
  std::size_t size() const { return tasks_.size(); }

 private:
  struct Task {
    PeerId client, generator;
    std::uint64_t request = 0;
  };
  using ClientKey = std::pair<PeerId, std::uint64_t>;
  void submit_to(const Peer* generator, const Peer& client, std::uint64_t request,
                 const wire::SubmitTask& task);
  Status check_names(const Peer& client, const wire::SubmitTask& task) const;
  void fail(const PeerId& client, std::uint64_t request, const Error& error);
  void forget(std::uint64_t number);
  void end(std::uint64_t number, const wire::TaskEvent& last);
  void end_failed(std::uint64_t number, const Error& error);
  bool told_again(const ClientKey& key);
  void cancel_at_generator(std::uint64_t number, const Task& task);

  Outbox& outbox_;
  PeerTable& peers_;
  std::uint64_t next_;                   // from a random place: none of before a restart
  std::map<std::uint64_t, Task> tasks_;  // by number
  std::map<ClientKey, std::uint64_t> by_request_;
  std::map<ClientKey, Error> failures_;                      // not delivered yet
  std::deque<std::pair<ClientKey, wire::TaskEvent>> ended_;  // newest last
  std::size_t ended_bytes_ = 0;
};

}  // namespace memslot
