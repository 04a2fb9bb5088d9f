#pragma once
// The controller's end of the link: one thread that decodes, routes and answers.
//
// Operation:   start() makes the state from the bank; run() serves until stop(). A peer says Hello
//              first; until then it is told so (ErrorReply with request 0, kUnavailable).
//              Heartbeats go both ways; a peer silent for four of them is lost: its sessions end,
//              its tasks fail, its leases go back to the queue. Time in which the server itself
//              stood still counts as nobody's silence.
// Concurrency: everything on run()'s thread, but bank-wide work on two workers; stop() from any
//              thread.
// Limits:      those of channel, session table, job queue and workers; over one, kOverloaded.
// Bad input:   what does not decode is dropped, counted and answered by an ErrorReply with request
//              0; a message of the wrong role by kPermission.
#include <atomic>

#include "controller/link/access.h"
#include "controller/link/admin.h"
#include "controller/link/controller_metrics.h"
#include "controller/link/relay.h"
#include "controller/step/step_handler.h"
#include "controller/step/write_back_handler.h"
#include "controller/trace/decision_recorder.h"

namespace memslot {

struct ServerSettings {
  Duration heartbeat = std::chrono::milliseconds(1000);
  Duration garbage_every = std::chrono::minutes(10);
  Duration garbage_grace = kDefaultGrace;
  Duration flush_every = std::chrono::seconds(5);
  std::size_t payload_cache_bytes = std::size_t{256} << 20;
  StepOptions steps;
  JobOptions jobs;
  AccessList access;
  PolicyEngine engine;      // empty: learned policies are refused
  std::string policy_file;  // a checkpoint that acts from the start, unless the bank knows it
  bool learn_online = false;
  OnlineOptions online;
  std::string traces;  // folder; "": nothing is recorded
  TraceLimits trace_limits;
  bool trace_features = true;
  std::string index;             // folder of its copy; "": it is made by every start
  std::string training;          // folder; "": policies are not trained here
  std::string training_program;  // path of memslot-rl
};

class Server {
 public:
  // Everything must outlive the server.
  Server(Channel& channel, MemoryBank& bank, DocumentBank& documents, const Clock& clock,
         ServerSettings settings);
  ~Server();

  Status start();
  void run();
  void stop();

  // GET /metrics (docs/metrics.md); any thread, while run() runs. Waits for the next tick.
  std::string metrics_text() { return metrics_.text(); }

  const ServerCounters& counters() const { return counters_; }  // run()'s thread
  const StepCounters& step_counters() const { return steps_.counters(); }
  std::uint64_t incarnation() const { return incarnation_; }
  std::size_t memories() { return keeper_.index().memories(); }
  std::size_t waiting_jobs() const { return jobs_.waiting(); }

 private:
  TimePoint soon() const;
  void receive_one();
  void dispatch(Packet packet);
  void on_hello(const Packet& packet, std::uint64_t request, const wire::Hello& hello);
  void come_back(Peer& before, const PeerId& now);
  void route(Peer& peer, wire::Message message);
  bool route_generator(Peer& peer, wire::Message& message);
  bool route_client(Peer& peer, wire::Message& message);
  void record(Peer& peer, std::uint64_t request, const wire::TraceEvents& events,
              const SharedBytes& frames);
  void submit(const Peer& client, std::uint64_t request, const wire::SubmitTask& task);
  void cancel(const Peer& client, std::uint64_t request);
  void lose(const PeerId& id, const std::string& why);
  void tick();
  void heartbeats(TimePoint now);
  void housekeeping(TimePoint now);
  LinkFigures figures();
  Status load_policy();
  void follow_policy();
  template <class T>
  void answer(const Peer& peer, std::uint64_t request, Result<T> result);

  Channel& channel_;
  MemoryBank& bank_;
  const Clock& clock_;
  const ServerSettings settings_;
  const std::uint64_t incarnation_;
  Outbox outbox_;
  PeerTable peers_;
  SessionTable sessions_;
  IndexKeeper keeper_;
  PayloadCache payloads_;
  PolicyShelf shelf_;
  FeedbackDesk desk_;
  std::unique_ptr<OnlineLearning> online_;  // null: nothing is learned
  std::string pinned_;                      // digest of the whitening that the index was given
  JobQueue jobs_;
  TraceStore traces_;
  DecisionRecorder decisions_;
  TrainingRuns trainings_;
  StepHandler steps_;
  WriteBackHandler write_backs_;
  Relay relay_;
  LearnLink learning_;
  Admin admin_;
  ControllerMetrics metrics_;
  ServerCounters counters_;
  TimePoint next_heartbeat_{}, next_tick_{}, next_garbage_{}, next_flush_{}, last_tick_{};
  std::atomic<bool> stop_ = false;
  Worker quick_, slow_, again_;  // last: their work uses everything above, and is waited for first
};

}  // namespace memslot
