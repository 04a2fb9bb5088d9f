#pragma once
// The administration verbs of docs/formats/tasks.md, and the task "verify".
//
// Verbs that touch the bank run on a worker; what follows from them (index, payload cache, reply)
// runs on the link's thread. A retried request that is under way is not begun again, and one that
// was just answered gets the same answer, over whatever connection it comes: a request is named by
// its client's key and incarnation.
//
// Threads: one at a time (the link's).
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>

#include "controller/link/learn_link.h"
#include "controller/link/worker.h"
#include "controller/session/session_table.h"
#include "controller/step/payload_cache.h"
#include "controller/step/step_handler.h"
#include "controller/trace/decision_recorder.h"
#include "controller/training/training_runs.h"

namespace memslot {

class Arguments;

struct AdminParts {
  Outbox& outbox;
  PeerTable& peers;
  MemoryBank& bank;
  const Clock& clock;
  JobQueue& jobs;
  LearnLink& learning;
  IndexKeeper& keeper;
  PayloadCache& payloads;
  SessionTable& sessions;
  TraceStore& traces;
  DecisionRecorder& decisions;
  Worker& quick;  // reads and single publishes
  Worker& slow;   // backup, purging, reading everything
  Worker& again;  // decisions made again, of traces
  LearnedParts learned;
  TrainingRuns& trainings;
};

class Admin {
 public:
  explicit Admin(const AdminParts& parts) : p_(parts) {}

  void handle(const Peer& client, std::uint64_t request, const wire::AdminRequest& admin,
              const std::vector<SharedBytes>& parts);
  void verify(const Peer& client, std::uint64_t request, const wire::SubmitTask& task);
  // A client's task "replay" as a generator takes it: with all that the trace says.
  Result<wire::SubmitTask> replay_task(const Peer& client, const wire::SubmitTask& task) const;
  bool cancel(const Peer& client, std::uint64_t request);
  void client_lost(const PeerId& client);
  void rehome(const PeerId& from, const PeerId& to);

 private:
  using Key = std::tuple<std::string, std::uint64_t, std::uint64_t>;  // user, incarnation, request
  // Where the answer to a request under way goes: its client may come back under another id. Any
  // thread.
  class Asker {
   public:
    Asker(PeerId client, std::uint64_t number) : request(number), client_(std::move(client)) {}
    PeerId client() const {
      const std::lock_guard lock(mutex_);
      return client_;
    }
    void move_to(const PeerId& client) {
      const std::lock_guard lock(mutex_);
      client_ = client;
    }
    const std::uint64_t request;
    std::atomic<bool> stop = false;

   private:
    mutable std::mutex mutex_;
    PeerId client_;  // guarded by mutex_
  };
  using UnderWay = std::map<Key, std::shared_ptr<Asker>>;
  struct Answer {
    std::string json;
    SharedBytes part;                  // null: none
    std::optional<MemoryRef> changed;  // its head moved or went
  };
  struct Job {
    std::function<Result<Answer>()> run;
    std::optional<MemoryRef> touches{};  // its head may have moved or gone, even after an error
  };

  Result<Answer> jobs_verb(const Peer& client, const wire::AdminRequest& admin);
  Result<Answer> peers_verb(const wire::AdminRequest& admin);
  Result<Job> bank_verb(const Peer& client, const wire::AdminRequest& admin, SharedBytes file);
  static Key key_of(const Peer& client, std::uint64_t request);
  void run(Worker& worker, const Peer& client, std::uint64_t request, Job job);
  void refresh(const std::optional<MemoryRef>& changed);
  void reply(const Key& key, const Asker& asker, const Result<Answer>& answer);
  Result<Job> list_verb(const Access& access, Arguments& arguments);
  Result<Job> import_verb(const Access& access, Arguments& arguments, SharedBytes file);
  Result<Job> whole_bank_verb(const Access& access, const std::string& verb, Arguments& arguments);
  Result<Job> memory_verb(const Access& access, const std::string& verb, Arguments& arguments);
  // inspect_verbs.cc
  Result<Job> find_verb(const Access& access, Arguments& arguments);
  Result<Job> segments_verb(const MemoryRef& ref);
  Result<Job> map_verb(const MemoryRef& ref, std::uint64_t others);
  // The namespaces of a listing, ascending: all that the client sees, or the one it names.
  std::vector<std::string> listed(const Access& access,
                                  const std::optional<std::string>& wanted) const;
  // policy_verbs.cc
  Result<Job> policy_verb(const Peer& client, const wire::AdminRequest& admin, SharedBytes file);
  Result<Job> load_policy(const Access& access, SharedBytes file);
  Result<Job> unload_policy(const Access& access);
  Result<Job> show_policy();
  Result<Job> give_feedback(const Access& access, std::uint64_t session, double value);
  // training_verbs.cc
  Result<Job> training_verb(const Peer& client, const wire::AdminRequest& admin, SharedBytes file);
  Result<Job> change_training(const std::string& verb, Arguments& arguments, SharedBytes file);
  Result<Job> start_training(Arguments& arguments);
  Result<Job> policy_curves(bool trainings);
  // trace_verbs.cc
  Result<Job> trace_verb(const Peer& client, const wire::AdminRequest& admin, SharedBytes file);
  Result<Job> other_choices(const std::string& id, Arguments& arguments, SharedBytes checkpoint);
  Result<Job> list_traces(const Access& access, Arguments& arguments);
  std::set<std::string> memories_of(const std::string& source, const Access& access) const;
  Result<TraceSummary> visible_trace(const Access& access, const std::string& id) const;
  // Of each connected generator that has a slot, what a policy must fit.
  std::vector<wire::OpenSession> spaces() const;
  Result<Answer> load_checkpoint(const std::string& bytes,
                                 const std::vector<wire::OpenSession>& spaces);
  static Result<Answer> text_answer(Result<std::string> json);
  TimePoint quick_end() const;
  TimePoint slow_end() const;

  AdminParts p_;
  UnderWay under_way_, verifying_;
  std::deque<std::pair<Key, wire::Message>> answered_;  // newest last, without files
};

}  // namespace memslot
