#include "controller/link/relay.h"

#include <algorithm>
#include <array>

#include "controller/link/arguments.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"
#include "shared/memory/record.h"

namespace memslot {
namespace {

constexpr std::array<std::string_view, 8> kKinds = {"generate", "score", "tokenize", "attest",
                                                    "status",   "bench", "gains",    "replay"};
// Of ended tasks: longer than any retry of theirs can still be under way.
constexpr std::size_t kRememberedTasks = 512;
constexpr std::size_t kRememberedBytes = std::size_t{16} << 20;

wire::TaskEvent failed_event(const Error& error) {
  wire::TaskEvent event;
  event.event = R"({"type":"failed"})";
  event.final = true;
  event.error = wire::ErrorReply{error.code, error.message};
  return event;
}

}  // namespace

Relay::Relay(Outbox& outbox, PeerTable& peers)
    : outbox_(outbox), peers_(peers), next_(random_nonce() >> 1) {}

bool Relay::handles(std::string_view kind) {
  return std::find(kKinds.begin(), kKinds.end(), kind) != kKinds.end();
}

Status Relay::check_names(const Peer& client, const wire::SubmitTask& task) const {
  MEMSLOT_TRY(const TaskNames names, names_of_task(task.arguments));
  for (const std::string& ns : names.namespaces) {
    if (!client.access.sees(ns)) return invisible("namespace " + ns);
  }
  for (const std::string& memory : names.memories) {
    MEMSLOT_TRY(const MemoryRef ref, MemoryRef::parse(memory));
    if (!client.access.sees(ref.ns)) return invisible("memory " + ref.text());
  }
  return ok();
}

void Relay::submit_to(const Peer* generator, const Peer& client, std::uint64_t request,
                      const wire::SubmitTask& task) {
  const ClientKey key{client.id, request};
  if (by_request_.contains(key)) return;  // a retry of what is under way
  if (told_again(key)) return;
  if (const auto allowed = check_names(client, task); !allowed) {
    return fail(client.id, request, allowed.error());
  }
  if (generator == nullptr) {
    return fail(client.id, request,
                {ErrorCode::kUnavailable, "generator: expected one connected, found none"});
  }
  const std::uint64_t number = ++next_;
  const auto sent =
      outbox_.send(generator->id, number, wire::AssignTask{number, task.kind, task.arguments});
  if (!sent) return fail(client.id, request, sent.error().with_context("generator"));
  tasks_[number] = {client.id, generator->id, request};
  by_request_[key] = number;
}

void Relay::forget(std::uint64_t number) {
  const auto found = tasks_.find(number);
  if (found == tasks_.end()) return;
  by_request_.erase({found->second.client, found->second.request});
  tasks_.erase(found);
}

void Relay::end(std::uint64_t number, const wire::TaskEvent& last) {
  const auto found = tasks_.find(number);
  if (found == tasks_.end()) return;
  ended_.emplace_back(ClientKey{found->second.client, found->second.request}, last);
  ended_bytes_ += last.event.size();
  forget(number);
  while (ended_.size() > kRememberedTasks || ended_bytes_ > kRememberedBytes) {
    ended_bytes_ -= ended_.front().second.event.size();
    ended_.pop_front();
  }
}

void Relay::end_failed(std::uint64_t number, const Error& error) {
  const Task task = tasks_.at(number);
  end(number, failed_event(error));
  fail(task.client, task.request, error);
}

bool Relay::told_again(const ClientKey& key) {
  const auto found = std::find_if(ended_.begin(), ended_.end(),
                                  [&](const auto& ended) { return ended.first == key; });
  if (found == ended_.end()) return false;
  // A full queue: the client asks again.
  static_cast<void>(outbox_.send(key.first, key.second, found->second));
  return true;
}

void Relay::cancel_at_generator(std::uint64_t number, const Task& task) {
  // Refused: its generator is gone or drowning, and its events will find no task here.
  static_cast<void>(
      outbox_.send(task.generator, 0, wire::CancelTask{.task = number, .request = 0}));
}

void Relay::fail(const PeerId& client, std::uint64_t request, const Error& error) {
  const auto sent = outbox_.failure(client, request, error);
  if (!sent && sent.error().code == ErrorCode::kOverloaded)
    failures_.emplace(ClientKey{client, request}, error);
}

void Relay::retry_failures() {
  for (auto it = failures_.begin(); it != failures_.end();) {
    const auto sent = outbox_.failure(it->first.first, it->first.second, it->second);
    const bool again = !sent && sent.error().code == ErrorCode::kOverloaded;
    it = again ? std::next(it) : failures_.erase(it);
  }
}

void Relay::event(const Peer& generator, wire::TaskEvent event) {
  const std::uint64_t number = event.task;
  const auto found = tasks_.find(number);
  if (found == tasks_.end() || found->second.generator != generator.id) {
    // Of a client that left, or of before our restart: nobody listens.
    if (!event.final) cancel_at_generator(number, {.client = {}, .generator = generator.id});
    return;
  }
  const Task task = found->second;
  const bool final = event.final;
  event.task = 0;
  const auto sent = outbox_.send(task.client, task.request, event);
  if (sent && final) end(number, event);
  if (sent) return;
  log::warn("task {}: ended: {}", number, sent.error().message);
  if (!final) cancel_at_generator(number, task);
  const bool full = sent.error().code == ErrorCode::kOverloaded;
  end_failed(number, full ? Error{ErrorCode::kOverloaded,
                                  "events: expected a client that reads them, found its queue full"}
                          : sent.error().with_context("event"));
}

void Relay::refused(const Peer& generator, std::uint64_t number, const Error& error) {
  const auto found = tasks_.find(number);
  if (found == tasks_.end() || found->second.generator != generator.id) return;
  end_failed(number, error);
}

bool Relay::cancel(const PeerId& client, std::uint64_t request) {
  const auto found = by_request_.find({client, request});
  if (found == by_request_.end()) return false;
  cancel_at_generator(found->second, tasks_.at(found->second));  // which says the last word
  return true;
}

void Relay::generator_lost(const PeerId& generator, const std::string& why) {
  std::vector<std::uint64_t> lost;
  for (const auto& [number, task] : tasks_) {
    if (task.generator == generator) lost.push_back(number);
  }
  for (const std::uint64_t number : lost) {
    cancel_at_generator(number, tasks_.at(number));
    end_failed(number, {ErrorCode::kUnavailable, why});
  }
}

void Relay::client_lost(const PeerId& client) {
  std::vector<std::uint64_t> left;
  for (const auto& [number, task] : tasks_) {
    if (task.client == client) left.push_back(number);
  }
  for (const std::uint64_t number : left) {
    cancel_at_generator(number, tasks_.at(number));
    forget(number);
  }
  // The identity may be taken by another process, which counts its requests from 1 again.
  std::erase_if(failures_, [&](const auto& item) { return item.first.first == client; });
  std::erase_if(ended_, [&](const auto& item) {
    if (item.first.first != client) return false;
    ended_bytes_ -= item.second.event.size();
    return true;
  });
}

void Relay::rehome_client(const PeerId& from, const PeerId& to) {
  for (auto& [number, task] : tasks_) {
    if (task.client != from) continue;
    by_request_.erase({from, task.request});
    task.client = to;
    by_request_[{to, task.request}] = number;
  }
  for (auto& [key, event] : ended_) {
    if (key.first == from) key.first = to;
  }
  std::map<ClientKey, Error> failures;
  for (auto& [key, error] : failures_) {
    failures.emplace(key.first == from ? ClientKey{to, key.second} : key, std::move(error));
  }
  failures_ = std::move(failures);
}

std::size_t Relay::tasks_of(const PeerId& generator) const {
  return static_cast<std::size_t>(
      std::count_if(tasks_.begin(), tasks_.end(),
                    [&](const auto& item) { return item.second.generator == generator; }));
}

}  // namespace memslot
