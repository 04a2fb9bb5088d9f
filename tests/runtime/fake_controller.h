#pragma once
// A controller of a few lines on a loopback link: answers what tests script, records what it hears.
//
// Threads: one of its own; the scripts run on it. Set them before the generator connects.
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "shared/transport/loopback_channel.h"
#include "shared/wire/codec.h"
#include "tests/learn/tiny_model.h"

namespace memslot::testing_support {

class FakeController {
 public:
  struct Answer {
    wire::Body body;
    std::vector<SharedBytes> parts;
  };
  struct Stored {
    MemoryVersion version;
    SharedBytes payload;
  };
  // Nothing: no answer at all.
  using OnObservation = std::function<std::optional<Answer>(const wire::Observation&)>;
  using OnFetch = std::function<std::optional<Answer>(const wire::FetchMemory&)>;
  using OnWriteBack =
      std::function<std::optional<Answer>(const wire::WriteBack&, const SharedBytes&)>;
  using OnLearn = std::function<std::optional<Answer>(const wire::LearnResult&)>;

  explicit FakeController(std::shared_ptr<LoopbackNetwork> network) : network_(std::move(network)) {
    start();
  }
  ~FakeController() { stop(); }

  void start(std::uint64_t incarnation = 1) {
    stopping_ = false;
    incarnation_ = incarnation;
    channel_ = must(network_->bind());
    thread_ = std::thread([this] { loop(); });
  }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
    channel_.reset();
    sessions_.clear();
  }

  void store(Stored memory) {
    const std::lock_guard lock(mutex_);
    memories_[memory.version.ref.ns + "/" + memory.version.ref.id] = std::move(memory);
  }
  std::vector<wire::Message> heard() const {
    const std::lock_guard lock(mutex_);
    return heard_;
  }
  template <class T>
  std::vector<T> heard_of() const {
    std::vector<T> out;
    for (const wire::Message& m : heard()) {
      if (const auto* body = std::get_if<T>(&m.body)) out.push_back(*body);
    }
    return out;
  }
  template <class T>
  bool wait_for(std::size_t count, std::chrono::seconds limit = std::chrono::seconds(5)) const {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (std::chrono::steady_clock::now() < end) {
      if (heard_of<T>().size() >= count) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }
  void say(wire::Message message) { send(peer_, std::move(message)); }
  bool has_peer() const { return known_; }

  OnObservation on_observation;
  OnFetch on_fetch;
  OnWriteBack on_write_back;
  OnLearn on_learn;

 private:
  void loop() {
    while (!stopping_) {
      auto packet =
          channel_->receive(std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
      if (known_ && std::chrono::steady_clock::now() >= next_beat_) {
        next_beat_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
        send(peer_, {0, wire::Heartbeat{incarnation_}, {}});
      }
      if (!packet) continue;
      auto message = wire::decode(packet.value().frames);
      if (!message) continue;
      peer_ = packet.value().peer;
      auto answer = answer_to(message.value());
      const std::uint64_t request = message.value().request;
      {
        const std::lock_guard lock(mutex_);
        heard_.push_back(std::move(message).value());
      }
      if (answer) send(peer_, {request, std::move(answer->body), std::move(answer->parts)});
      known_ = true;
    }
  }
  std::optional<Answer> answer_to(const wire::Message& m) {
    if (std::holds_alternative<wire::Hello>(m.body)) {
      return Answer{wire::HelloReply{incarnation_, "fake", 250}, {}};
    }
    if (const auto* open = std::get_if<wire::OpenSession>(&m.body)) {
      sessions_[open->session] = *open;
      return Answer{wire::OpenSessionReply{open->session, "scripted", ""}, {}};
    }
    if (const auto* close = std::get_if<wire::CloseSession>(&m.body)) {
      return Answer{wire::CloseSessionReply{close->session}, {}};
    }
    if (const auto* observation = std::get_if<wire::Observation>(&m.body)) {
      if (!sessions_.contains(observation->session)) return unknown("session");
      return on_observation ? on_observation(*observation) : keep(*observation);
    }
    if (const auto* fetch = std::get_if<wire::FetchMemory>(&m.body)) {
      return on_fetch ? on_fetch(*fetch) : fetched(*fetch);
    }
    if (const auto* back = std::get_if<wire::WriteBack>(&m.body)) {
      if (!sessions_.contains(back->session)) return unknown("session");
      if (on_write_back) return on_write_back(*back, m.parts.at(0));
      MemoryVersion stored = back->version;
      stored.ref.version = 1;
      store({stored, m.parts.at(0)});
      return Answer{wire::WriteBackReply{false, stored}, {}};
    }
    if (const auto* learned = std::get_if<wire::LearnResult>(&m.body)) {
      if (on_learn) return on_learn(*learned);
      return Answer{wire::LearnAck{learned->job, learned->lease, true, ""}, {}};
    }
    if (const auto* failed = std::get_if<wire::LearnFailed>(&m.body)) {
      return Answer{wire::LearnAck{failed->job, failed->lease, true, ""}, {}};
    }
    return std::nullopt;
  }
  std::optional<Answer> fetched(const wire::FetchMemory& fetch) {
    const std::lock_guard lock(mutex_);
    const auto found = memories_.find(fetch.ref.ns + "/" + fetch.ref.id);
    if (found == memories_.end()) return unknown("memory");
    return Answer{wire::MemoryReply{fetch.session, found->second.version}, {found->second.payload}};
  }
  static std::optional<Answer> keep(const wire::Observation& o) {
    wire::Directive directive;
    directive.session = o.session;
    directive.step = o.step;
    return Answer{std::move(directive), {}};
  }
  static std::optional<Answer> unknown(const char* what) {
    return Answer{wire::ErrorReply{ErrorCode::kNotFound, std::string("no such ") + what}, {}};
  }
  void send(const PeerId& peer, wire::Message message) {
    auto frames = must(wire::encode(message));
    static_cast<void>(channel_->send({peer, std::move(frames)}));
  }

  std::shared_ptr<LoopbackNetwork> network_;
  std::unique_ptr<Channel> channel_;
  std::thread thread_;
  std::atomic<bool> stopping_{false}, known_{false};
  std::uint64_t incarnation_ = 1;
  PeerId peer_;
  std::chrono::steady_clock::time_point next_beat_{};
  std::map<std::uint64_t, wire::OpenSession> sessions_;
  mutable std::mutex mutex_;
  std::vector<wire::Message> heard_;
  std::map<std::string, Stored> memories_;
};

// The directive that puts `memory` into slot 0, with its payload along or said to be resident.
inline FakeController::Answer use(const wire::Observation& o, const FakeController::Stored& memory,
                                  bool with_payload) {
  wire::Directive directive;
  directive.session = o.session;
  directive.step = o.step;
  directive.candidates = 2;
  directive.actions.push_back({0, wire::ActionKind::kUse, memory.version.ref, memory.version.sha256,
                               with_payload ? 0 : -1});
  FakeController::Answer answer{std::move(directive), {}};
  if (with_payload) answer.parts.push_back(memory.payload);
  return answer;
}
inline FakeController::Answer to_base(const wire::Observation& o) {
  wire::Directive directive;
  directive.session = o.session;
  directive.step = o.step;
  directive.actions.push_back({0, wire::ActionKind::kBase, MemoryRef{"", "", 0}, {}, -1});
  return {std::move(directive), {}};
}

}  // namespace memslot::testing_support
