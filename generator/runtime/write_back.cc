#include "generator/runtime/write_back.h"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "shared/base/log.h"
#include "shared/base/rng.h"

namespace memslot {

struct WriteBack::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  MemoryVersion head;       // what the next write-back is made from
  bool under_way = false;
  Outcome outcome;

  void answered(Result<wire::Message> reply) {
    const std::lock_guard lock(mutex);
    under_way = false;
    outcome = {};
    const auto* body =
        reply ? std::get_if<wire::WriteBackReply>(&reply.value().body) : nullptr;
    if (body != nullptr) {
      outcome.stored = true;
      outcome.conflict = body->conflict;
      outcome.memory = body->version.ref.text();
      if (!body->conflict) head = body->version;
    } else {
      outcome.error = reply ? "reply: expected WriteBackReply, found another message"
                            : reply.error().message;
      log::warn("write-back of {}: {}", head.ref.text(), outcome.error);
    }
    changed.notify_all();
  }
};

WriteBack::WriteBack(Outbox& outbox, wire::OpenSession session, MemoryVersion origin)
    : outbox_(outbox), session_(std::move(session)), shared_(std::make_shared<Shared>()) {
  shared_->head = std::move(origin);
}

Status WriteBack::write(std::uint64_t step, std::uint64_t position, const MemoryPayload& state) {
  const auto bytes = share_bytes({state.bytes().begin(), state.bytes().end()});
  wire::WriteBack body;
  body.session = session_.session;
  body.step = step;
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->under_way) return ok();
    shared_->under_way = true;
    const MemoryVersion& head = shared_->head;
    body.expected = head.token;
    body.version = head;
    body.version.parent = head.token;
  }
  body.version.ref.version = 0;
  body.version.token = fmt::format("wb-{:016x}-{:016x}", session_.session, random_nonce());
  body.version.signature = state.signature();
  body.version.dtype = state.dtype();
  body.version.origin = VersionOrigin::kWriteBack;
  body.version.origin_id = fmt::format("{:016x}", session_.session);
  body.version.created_unix_ms = SystemClock().unix_ms();
  body.version.payload_bytes = bytes->size();
  body.version.sha256 = sha256(*bytes);
  body.version.keys = 0;
  body.version.branch = false;
  body.version.position = position;
  const Status added =
      outbox_.add({std::move(body), {bytes}, session_, [shared = shared_](Result<wire::Message> r) {
                     shared->answered(std::move(r));
                   }});
  if (!added) {
    const std::lock_guard lock(shared_->mutex);
    shared_->under_way = false;
    shared_->outcome = {};
    shared_->outcome.error = added.error().message;
  }
  return added;
}

WriteBack::Outcome WriteBack::wait(TimePoint deadline) {
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait_until(lock, deadline, [&] { return !shared_->under_way; });
  Outcome out = shared_->outcome;
  out.pending = shared_->under_way;
  return out;
}

}  // namespace memslot
