#include "controller/link/admin.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "controller/link/arguments.h"
#include "controller/link/bank_verbs.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using Json = nlohmann::ordered_json;

constexpr auto kQuickTime = std::chrono::seconds(20);
constexpr auto kSlowTime = std::chrono::hours(2);
constexpr std::size_t kRememberedAnswers = 64;
constexpr std::uint64_t kMostListed = 10000;

constexpr std::array<std::string_view, 7> kMemoryVerbs = {
    "bank.show",   "bank.history",  "bank.rollback", "bank.rm",
    "bank.export", "bank.segments", "bank.map"};

Result<MemoryRef> visible_memory(Arguments& arguments, const Access& access) {
  MEMSLOT_TRY(const std::string text, arguments.text("memory"));
  MEMSLOT_TRY(MemoryRef ref, MemoryRef::parse(text));
  if (!access.sees(ref.ns)) return invisible("memory " + ref.text());
  return ref;
}

// Of jobs, oldest first, the newest that one reply holds, and how many others there are.
std::string newest_jobs(const std::vector<std::string>& jobs) {
  Json out = Json::array();
  std::size_t bytes = 0;
  for (auto job = jobs.rbegin(); job != jobs.rend(); ++job) {
    if (bytes + job->size() > bank_verbs::kPageBytes) continue;
    bytes += job->size();
    out.insert(out.begin(), Json::parse(*job));
  }
  const std::size_t left_off = jobs.size() - out.size();
  return dump(Json{{"jobs", std::move(out)}, {"left_off", left_off}});
}

// `waits`: what is missing before anybody could begin it, "" if nothing is.
Json shown_job(const Job& job, std::string waits) {
  Json json = Json::parse(to_json(job));
  if (!waits.empty()) json["waits"] = std::move(waits);
  return json;
}

Error unknown_verb(const std::string& verb) {
  return invalid("verb", "one of docs/formats/tasks.md", verb);
}

bool is_slow(std::string_view verb) {
  return verb == "bank.backup" || verb == "bank.rm" || verb == "bank.export" ||
         verb == "bank.import" || verb == "training.table";
}

}  // namespace

TimePoint Admin::quick_end() const { return deadline_in(p_.clock, kQuickTime); }
TimePoint Admin::slow_end() const { return deadline_in(p_.clock, kSlowTime); }

Result<Admin::Answer> Admin::text_answer(Result<std::string> json) {
  if (!json) return json.error();
  return Answer{.json = std::move(json).value(), .part = {}, .changed = {}};
}

Admin::Key Admin::key_of(const Peer& client, std::uint64_t request) {
  return {client.user, client.hello.incarnation, request};
}

void Admin::reply(const Key& key, const Asker& asker, const Result<Answer>& answer) {
  under_way_.erase(key);
  wire::Message message{asker.request, wire::ErrorReply{}, {}};
  if (answer) {
    message.body = wire::AdminReply{answer.value().json};
    if (answer.value().part != nullptr) message.parts.push_back(answer.value().part);
  } else {
    message.body = wire::ErrorReply{answer.error().code, answer.error().message};
  }
  static_cast<void>(p_.outbox.send(asker.client(), message));
  if (!message.parts.empty()) return;  // made again on a retry: a file is too large to keep
  answered_.emplace_back(key, std::move(message));
  if (answered_.size() > kRememberedAnswers) answered_.pop_front();
}

std::vector<std::string> Admin::listed(const Access& access,
                                       const std::optional<std::string>& wanted) const {
  // The bank itself could tell only by reading the names of all memories.
  if (!wanted) return access.seen(p_.keeper.catalog().namespaces());
  return access.sees(*wanted) ? std::vector<std::string>{*wanted} : std::vector<std::string>();
}

void Admin::refresh(const std::optional<MemoryRef>& changed) {
  if (!changed) return;
  p_.payloads.forget(*changed);
  p_.keeper.changed(*changed);
}

void Admin::run(Worker& worker, const Peer& client, std::uint64_t request, Job job) {
  const Key key = key_of(client, request);
  const auto asker = std::make_shared<Asker>(client.id, request);
  under_way_[key] = asker;
  const auto queued =
      worker.submit([this, key, asker, job = std::move(job)]() -> Worker::Completion {
        return [this, key, asker, touches = job.touches, answer = job.run()] {
          refresh(touches);
          if (answer) refresh(answer.value().changed);
          reply(key, *asker, answer);
        };
      });
  if (!queued) reply(key, *asker, queued.error());
}

Result<Admin::Answer> Admin::jobs_verb(const Peer& client, const wire::AdminRequest& admin) {
  MEMSLOT_TRY(Arguments arguments, Arguments::parse(admin.arguments));
  if (admin.verb == "jobs.ls") {
    MEMSLOT_TRY(const auto state, arguments.text_if("state"));
    MEMSLOT_TRY(arguments.finish());
    if (state) {
      MEMSLOT_TRY(parse_job_state(*state));
    }
    std::vector<std::string> found;
    for (const auto* job : p_.jobs.jobs()) {
      if (!client.access.sees(job->target.ns)) continue;
      if (!state || *state == job_state_name(job->state)) {
        std::string waits = p_.learning.missing(*job);
        found.push_back(waits.empty() ? to_json(*job) : dump(shown_job(*job, std::move(waits))));
      }
    }
    return Answer{.json = newest_jobs(found), .part = {}, .changed = {}};
  }
  if (admin.verb != "jobs.show" && admin.verb != "jobs.cancel") return unknown_verb(admin.verb);
  MEMSLOT_TRY(const std::string id, arguments.text("job"));
  MEMSLOT_TRY(arguments.finish());
  const auto* job = p_.jobs.find(id);
  if (job == nullptr || !client.access.sees(job->target.ns)) return invisible("job " + id);
  if (admin.verb == "jobs.cancel") {
    MEMSLOT_TRY(p_.learning.cancel(id, "cancelled by a client"));
  }
  return Answer{.json = dump(Json{{"job", shown_job(*job, p_.learning.missing(*job))}}),
                .part = {},
                .changed = {}};
}

Result<Admin::Answer> Admin::peers_verb(const wire::AdminRequest& admin) {
  if (admin.verb != "peers.ls") return unknown_verb(admin.verb);
  MEMSLOT_TRY(const Arguments arguments, Arguments::parse(admin.arguments));
  MEMSLOT_TRY(arguments.finish());
  Json generators = Json::array();
  std::size_t clients = 0;
  for (const auto& [id, peer] : p_.peers.all()) {
    if (!peer.is_generator()) {
      ++clients;
      continue;
    }
    Json layers = Json::array();
    for (const wire::SlotInfo& slot : peer.hello.slots) layers.push_back(slot.layer);
    generators.push_back({{"incarnation", peer.hello.incarnation},
                          {"build", peer.hello.build},
                          {"model", peer.hello.model.hex()},
                          {"model_name", peer.hello.model_name},
                          {"layers", std::move(layers)},
                          {"learn_workers", peer.hello.learn_workers},
                          {"learning", p_.jobs.leases(id)},
                          {"sessions", p_.sessions.count(id)}});
  }
  const Json out = {{"generators", std::move(generators)},
                    {"clients", clients},
                    {"sessions", p_.sessions.size()}};
  return Answer{.json = dump(out), .part = {}, .changed = {}};
}

Result<Admin::Job> Admin::list_verb(const Access& access, Arguments& arguments) {
  bank_verbs::ListQuery query;
  MEMSLOT_TRY(const auto ns, arguments.text_if("namespace"));
  MEMSLOT_TRY(const auto prefix, arguments.text_if("prefix"));
  MEMSLOT_TRY(const auto source, arguments.text_if("source"));
  MEMSLOT_TRY(const auto after, arguments.text_if("after"));
  MEMSLOT_TRY(query.limit, arguments.number_or("limit", 100));
  MEMSLOT_TRY(arguments.finish());
  if (query.limit < 1 || query.limit > kMostListed)
    return invalid("limit", "1 to 10000", query.limit);
  query.prefix = prefix.value_or("");
  query.source = source.value_or("");
  query.after = after.value_or("");
  return Job([=, this]() mutable -> Result<Answer> {
    query.namespaces = listed(access, ns);
    return text_answer(bank_verbs::list(p_.bank, query, quick_end()));
  });
}

Result<Admin::Job> Admin::import_verb(const Access& access, Arguments& arguments,
                                      SharedBytes file) {
  MEMSLOT_TRY(const auto ns, arguments.text_if("namespace"));
  MEMSLOT_TRY(const auto id, arguments.text_if("id"));
  MEMSLOT_TRY(arguments.finish());
  const std::string into = ns.value_or("default");
  if (!access.sees(into)) return invisible("namespace " + into);
  if (file == nullptr) return invalid("bank.import", "a file as part 0", "none");
  return Job([=, this]() -> Result<Answer> {
    MEMSLOT_TRY(auto made,
                bank_verbs::import_file(p_.bank, *file, into, id.value_or(""), slow_end()));
    return Answer{.json = std::move(made.json), .part = {}, .changed = made.ref};
  });
}

Result<Admin::Job> Admin::whole_bank_verb(const Access& access, const std::string& verb,
                                          Arguments& arguments) {
  if (verb == "bank.usage") {
    MEMSLOT_TRY(arguments.finish());
    return Job([this, count = p_.keeper.index().memories()] {
      return text_answer(bank_verbs::usage(p_.bank, count, quick_end()));
    });
  }
  MEMSLOT_TRY(const std::string directory, arguments.text("directory"));
  MEMSLOT_TRY(arguments.finish());
  // The whole bank leaves: for those who may see all of it.
  MEMSLOT_TRY(access.check_sees_everything("bank.backup"));
  if (!directory.starts_with('/')) {
    return invalid("bank.backup directory", "an absolute path on the controller's host", directory);
  }
  return Job([=, this]() -> Result<Answer> {
    MEMSLOT_TRY(const std::string made, bank_verbs::backup(p_.bank, directory, slow_end()));
    Json out = Json::parse(made);
    if (p_.traces.keeps()) {
      MEMSLOT_TRY(out["traces"], p_.traces.copy_to(directory + "/traces"));
    }
    return text_answer(dump(out));
  });
}

Result<Admin::Job> Admin::memory_verb(const Access& access, const std::string& verb,
                                      Arguments& arguments) {
  MEMSLOT_TRY(const MemoryRef ref, visible_memory(arguments, access));
  std::uint64_t to = 0, after = 0, others = 0;
  // A version would be ignored, and more be done than was meant.
  if ((verb == "bank.rm" || verb == "bank.rollback") && ref.version != 0) {
    return invalid(verb + " memory", "one without a version (it is of the whole memory)",
                   ref.text());
  }
  if (verb == "bank.rollback") {
    MEMSLOT_TRY(to, arguments.number("to"));
  }
  if (verb == "bank.history") {
    MEMSLOT_TRY(after, arguments.number_or("after", 0));
  }
  if (verb == "bank.map") {
    MEMSLOT_TRY(others, arguments.number_or("others", 500));
  }
  MEMSLOT_TRY(arguments.finish());
  if (verb == "bank.segments") return segments_verb(ref);
  if (verb == "bank.map") return map_verb(ref, others);
  if (verb == "bank.show") {
    return Job([=, this] { return text_answer(bank_verbs::show(p_.bank, ref, quick_end())); });
  }
  if (verb == "bank.history") {
    return Job(
        [=, this] { return text_answer(bank_verbs::history(p_.bank, ref, after, quick_end())); });
  }
  if (verb == "bank.rollback") {
    return Job(
        [=, this] {
          return text_answer(bank_verbs::rollback(p_.bank, p_.clock, ref, to, quick_end()));
        },
        ref);
  }
  if (verb == "bank.rm") {
    // Before the bank compacts, so that no file holds the learned text afterwards.
    MEMSLOT_TRY(p_.learning.forget(ref, "the memory was removed"));
    return Job(
        [=, this] {
          auto erased = bank_verbs::erase(p_.bank, ref, slow_end());
          if (erased) p_.traces.forget(ref);
          return text_answer(std::move(erased));
        },
        ref);
  }
  return Job([=, this]() -> Result<Answer> {
    MEMSLOT_TRY(auto made, bank_verbs::export_file(p_.bank, ref, slow_end()));
    return Answer{.json = std::move(made.json), .part = std::move(made.file), .changed = {}};
  });
}

Result<Admin::Job> Admin::bank_verb(const Peer& client, const wire::AdminRequest& admin,
                                    SharedBytes file) {
  MEMSLOT_TRY(Arguments arguments, Arguments::parse(admin.arguments));
  const std::string& verb = admin.verb;
  const Access& access = client.access;
  if (verb == "bank.ls") return list_verb(access, arguments);
  if (verb == "bank.find") return find_verb(access, arguments);
  if (verb == "bank.import") return import_verb(access, arguments, std::move(file));
  if (verb == "bank.usage" || verb == "bank.backup")
    return whole_bank_verb(access, verb, arguments);
  const auto known = std::find(kMemoryVerbs.begin(), kMemoryVerbs.end(), verb);
  return known == kMemoryVerbs.end() ? unknown_verb(verb) : memory_verb(access, verb, arguments);
}

void Admin::handle(const Peer& client, std::uint64_t request, const wire::AdminRequest& admin,
                   const std::vector<SharedBytes>& parts) {
  const Key key = key_of(client, request);
  if (const auto same = under_way_.find(key); same != under_way_.end()) {
    return same->second->move_to(client.id);
  }
  for (const auto& [answered, message] : answered_) {
    if (answered == key) {
      static_cast<void>(p_.outbox.send(client.id, message));
      return;
    }
  }
  const Asker asker(client.id, request);
  if (admin.verb.starts_with("jobs.")) return reply(key, asker, jobs_verb(client, admin));
  const bool policy = admin.verb.starts_with("policy.");
  const bool traces = admin.verb.starts_with("trace.");
  const bool training = admin.verb.starts_with("training.");
  if (!policy && !traces && !training && !admin.verb.starts_with("bank.")) {
    return reply(key, asker, peers_verb(admin));
  }
  SharedBytes file = parts.empty() ? nullptr : parts[0];
  auto job = policy     ? policy_verb(client, admin, std::move(file))
             : traces   ? trace_verb(client, admin, std::move(file))
             : training ? training_verb(client, admin, std::move(file))
                        : bank_verb(client, admin, std::move(file));
  if (!job) return reply(key, asker, job.error());
  const bool again = admin.verb == "trace.check" || admin.verb == "trace.choices";
  run(is_slow(admin.verb) ? p_.slow
      : again             ? p_.again
                          : p_.quick,
      client, request, std::move(job).value());
}

void Admin::verify(const Peer& client, std::uint64_t request, const wire::SubmitTask& task) {
  const Key key = key_of(client, request);
  if (const auto same = verifying_.find(key); same != verifying_.end()) {
    return same->second->move_to(client.id);
  }
  const auto ns = [&]() -> Result<std::optional<std::string>> {
    MEMSLOT_TRY(Arguments arguments, Arguments::parse(task.arguments));
    MEMSLOT_TRY(auto wanted, arguments.text_if("namespace"));
    MEMSLOT_TRY(arguments.finish());
    if (wanted && !client.access.sees(*wanted)) return invisible("namespace " + *wanted);
    return wanted;
  }();
  if (!ns) {
    static_cast<void>(p_.outbox.failure(client.id, request, ns.error()));
    return;
  }
  const auto asker = std::make_shared<Asker>(client.id, request);
  verifying_[key] = asker;
  const auto queued = p_.slow.submit(
      [this, key, asker, wanted = ns.value(), access = client.access]() -> Worker::Completion {
        TimePoint told{};
        const auto progress = [&](std::uint64_t done, std::uint64_t total) {
          const TimePoint now = p_.clock.now();
          if (now - told >= std::chrono::milliseconds(200)) {
            told = now;
            const Json json = {{"type", "progress"},
                               {"job", ""},
                               {"phase", "verify"},
                               {"step", done},
                               {"steps", total}};
            static_cast<void>(
                p_.outbox.event(asker->client(), asker->request, dump(json), /*final=*/false));
          }
          return !asker->stop && !p_.slow.stopping();
        };
        auto report = p_.bank.verify(progress, deadline_in(p_.clock, kSlowTime));
        return [this, key, asker, wanted, access, report = std::move(report)] {
          verifying_.erase(key);
          if (!report) {
            static_cast<void>(p_.outbox.failure(asker->client(), asker->request, report.error()));
            return;
          }
          const auto sees = [&](std::string_view name) {
            return access.sees(name) && (!wanted || *wanted == name);
          };
          static_cast<void>(p_.outbox.event(asker->client(), asker->request,
                                            bank_verbs::verified(report.value(), sees),
                                            /*final=*/true));
        };
      });
  if (queued) return;
  verifying_.erase(key);
  static_cast<void>(p_.outbox.failure(client.id, request, queued.error()));
}

bool Admin::cancel(const Peer& client, std::uint64_t request) {
  const auto found = verifying_.find(key_of(client, request));
  if (found == verifying_.end()) return false;
  found->second->stop = true;
  return true;
}

void Admin::client_lost(const PeerId& client) {
  for (auto& [key, asker] : verifying_) {
    if (asker->client() == client) asker->stop = true;
  }
}

void Admin::rehome(const PeerId& from, const PeerId& to) {
  for (UnderWay* requests : {&under_way_, &verifying_}) {
    for (auto& [key, asker] : *requests) {
      if (asker->client() == from) asker->move_to(to);
    }
  }
}

}  // namespace memslot
