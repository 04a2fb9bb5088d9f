#pragma once
// The administration verbs of docs/formats/tasks.md, and the task "verify".
//
// Verbs that touch the bank run on a worker; what follows from them (index, payload cache, reply)
// runs on the link's thread. A retried request that is under way is not begun again, and one that
// was just answered gets the same answer.
//
// Threads: one at a time (the link's).
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "controller/link/learn_link.h"
#include "controller/link/worker.h"
#include "controller/session/session_table.h"
#include "controller/step/payload_cache.h"

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
  Worker& quick;  // reads and single publishes
  Worker& slow;   // backup, purging, reading everything
};

class Admin {
 public:
  explicit Admin(const AdminParts& parts) : p_(parts) {}

  void handle(const Peer& client, std::uint64_t request, const wire::AdminRequest& admin,
              const std::vector<SharedBytes>& parts);
  void verify(const Peer& client, std::uint64_t request, const wire::SubmitTask& task);
  bool cancel(const PeerId& client, std::uint64_t request);
  void client_lost(const PeerId& client);

 private:
  using Key = std::pair<PeerId, std::uint64_t>;  // client, request
  struct Answer {
    std::string json;
    SharedBytes part;                  // null: none
    std::optional<MemoryRef> changed;  // its head moved or went
  };
  using Job = std::function<Result<Answer>()>;

  Result<Answer> jobs_verb(const Peer& client, const wire::AdminRequest& admin);
  Result<Answer> peers_verb(const wire::AdminRequest& admin);
  Result<Job> bank_verb(const Peer& client, const wire::AdminRequest& admin, SharedBytes file);
  void run(Worker& worker, const Key& key, Job job);
  void reply(const Key& key, const Result<Answer>& answer);
  Result<Job> list_verb(const Access& access, Arguments& arguments);
  Result<Job> import_verb(const Access& access, Arguments& arguments, SharedBytes file);
  Result<Job> whole_bank_verb(const Access& access, const std::string& verb, Arguments& arguments);
  Result<Job> memory_verb(const Access& access, const std::string& verb, Arguments& arguments);
  static Result<Answer> text_answer(Result<std::string> json,
                                    std::optional<MemoryRef> changed = {});
  TimePoint quick_end() const;
  TimePoint slow_end() const;

  AdminParts p_;
  std::set<Key> under_way_;
  std::deque<std::pair<Key, wire::Message>> answered_;           // newest last, without files
  std::map<Key, std::shared_ptr<std::atomic<bool>>> verifying_;  // true: stop
};

}  // namespace memslot
