#include "generator/runtime/write_back.h"

#include <fmt/format.h>

#include <algorithm>  // find_if, rotate
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "shared/base/log.h"
#include "shared/base/rng.h"

namespace memslot {

struct WriteBack::Shared : std::enable_shared_from_this<WriteBack::Shared> {
  struct State {
    std::uint64_t step = 0, position = 0;
    SlotSignature signature;
    DType dtype = DType::kF32;
    SharedBytes bytes;
  };

  Shared(Outbox& to, wire::OpenSession opening, MemoryVersion origin)
      : outbox(to), session(std::move(opening)), from(origin.ref.text()), head(std::move(origin)) {}

  // With under_way set by the caller.
  Status send(State state);
  void answered(Result<wire::Message> reply);
  void note(Result<wire::Message> reply);
  wire::WriteBack body_of(const State& state);

  Outbox& outbox;  // outlives its callbacks
  const wire::OpenSession session;
  const std::string from;
  std::mutex mutex;
  std::condition_variable changed;
  MemoryVersion head;  // what the next write-back is made from
  bool under_way = false;
  std::optional<State> later;         // the latest that came meanwhile
  std::optional<std::uint64_t> last;  // position of the last state, unless it failed
  Outcome outcome;
};

void WriteBack::Shared::note(Result<wire::Message> reply) {
  outcome = {};
  const auto* body = reply ? std::get_if<wire::WriteBackReply>(&reply.value().body) : nullptr;
  if (body != nullptr) {
    outcome.stored = true;
    outcome.conflict = body->conflict;
    outcome.memory = body->version.ref.text();
    if (!body->conflict) head = body->version;
    return;
  }
  outcome.error =
      reply ? "reply: expected WriteBackReply, found another message" : reply.error().message;
  if (!later) last.reset();
  log::warn("write-back of {}: {}", head.ref.text(), outcome.error);
}

void WriteBack::Shared::answered(Result<wire::Message> reply) {
  std::optional<State> next;
  {
    const std::lock_guard lock(mutex);
    note(std::move(reply));
    next = std::exchange(later, std::nullopt);
    under_way = next.has_value();
  }
  if (next) {
    static_cast<void>(send(std::move(*next)));  // its error is in the outcome
  }
  changed.notify_all();
}

wire::WriteBack WriteBack::Shared::body_of(const State& state) {
  wire::WriteBack body;
  body.session = session.session;
  body.step = state.step;
  {
    const std::lock_guard lock(mutex);
    body.expected = head.token;
    body.version = head;
    body.version.parent = head.token;
  }
  body.version.ref.version = 0;
  body.version.token = fmt::format("wb-{:016x}-{:016x}", session.session, random_nonce());
  body.version.signature = state.signature;
  body.version.dtype = state.dtype;
  body.version.origin = VersionOrigin::kWriteBack;
  body.version.origin_id = fmt::format("{:016x}", session.session);
  body.version.created_unix_ms = SystemClock().unix_ms();
  body.version.payload_bytes = state.bytes->size();
  body.version.sha256 = sha256(*state.bytes);
  body.version.keys = 0;
  body.version.branch = false;
  body.version.position = state.position;
  return body;
}

Status WriteBack::Shared::send(State state) {
  const Status added = outbox.add({body_of(state),
                                   {state.bytes},
                                   session,
                                   [shared = shared_from_this()](Result<wire::Message> reply) {
                                     shared->answered(std::move(reply));
                                   }});
  if (!added) {
    const std::lock_guard lock(mutex);
    under_way = false;
    last.reset();
    outcome = {};
    outcome.error = added.error().message;
  }
  return added;
}

WriteBack::WriteBack(Outbox& outbox, wire::OpenSession session, MemoryVersion origin)
    : shared_(std::make_shared<Shared>(outbox, std::move(session), std::move(origin))) {}

Status WriteBack::write(std::uint64_t step, std::uint64_t position, const MemoryPayload& state) {
  Shared::State next{step, position, state.signature(), state.dtype(),
                     share_bytes({state.bytes().begin(), state.bytes().end()})};
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->last == position) return ok();
    shared_->last = position;
    if (shared_->under_way) {
      shared_->later = std::move(next);
      return ok();
    }
    shared_->under_way = true;
  }
  return shared_->send(std::move(next));
}

WriteBack::Outcome WriteBack::wait(TimePoint deadline) {
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait_until(lock, deadline, [&] { return !shared_->under_way; });
  Outcome out = shared_->outcome;
  out.from = shared_->from;
  out.pending = shared_->under_way;
  return out;
}

Status WriteBacks::write(const MemoryVersion& origin, std::uint64_t step, std::uint64_t position,
                         const MemoryPayload& state) {
  const auto found = std::find_if(all_.begin(), all_.end(),
                                  [&](const auto& one) { return one.first == origin.token; });
  if (found == all_.end()) {
    all_.emplace_back(origin.token, WriteBack(outbox_, session_, origin));
  } else {
    std::rotate(found, found + 1, all_.end());
  }
  return all_.back().second.write(step, position, state);
}

std::vector<WriteBack::Outcome> WriteBacks::wait(TimePoint deadline) {
  std::vector<WriteBack::Outcome> out;
  for (auto& [token, one] : all_) out.push_back(one.wait(deadline));
  return out;
}

}  // namespace memslot
