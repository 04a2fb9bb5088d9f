#include "generator/runtime/selector.h"

#include <utility>

#include "shared/base/log.h"
#include "shared/wire/limits.h"  // kMaxChunkValues

namespace memslot {
namespace {

// What a reply of another type than asked for is worth.
Error unexpected(const char* wanted) {
  return {ErrorCode::kInternal,
          std::string("reply: expected ") + wanted + ", found another message"};
}

}  // namespace

Selector::Selector(ControllerLink& link, ResidentSet& residents, const Clock& clock,
                   wire::OpenSession open)
    : link_(link), residents_(residents), clock_(clock), open_(std::move(open)) {}

Selector::~Selector() {
  release_pins();
  if (!opened_) return;
  wire::Observation last;
  last.session = open_.session;
  link_.request(wire::CloseSession{open_.session, std::move(last)});
}

Status Selector::open(TimePoint deadline) {
  wire::OpenSession request = open_;
  // Again: with what it was opened with, though the controller's default may be another by now.
  if (!policy_.empty()) request.policy = policy_;
  MEMSLOT_TRY(const wire::Message reply, link_.call(request, {}, deadline));
  const auto* body = std::get_if<wire::OpenSessionReply>(&reply.body);
  if (body == nullptr) return unexpected("OpenSessionReply");
  policy_ = body->policy;
  opened_ = true;
  known_epoch_ = 0;
  window_known_ = false;
  return ok();
}

Result<wire::Message> Selector::reopened(const wire::Body& body, Result<wire::Message> reply,
                                         TimePoint deadline) {
  if (reply || reply.error().code != ErrorCode::kNotFound || !opened_) return reply;
  // Either what was asked for does not exist, or the controller restarted and forgot the session;
  // opening again is idempotent and tells.
  log::info("session {:x}: opening again: {}", open_.session, reply.error().message);
  MEMSLOT_TRY(open(deadline));
  if (const auto* observation = std::get_if<wire::Observation>(&body)) {
    wire::Observation again = *observation;
    again.residents = report();
    tell_whole_window(again);
    return link_.call(std::move(again), {}, deadline);
  }
  return link_.call(body, {}, deadline);
}

wire::ResidentDelta Selector::report() {
  const ResidentChanges changes = residents_.changes_since(known_epoch_);
  sent_epoch_ = changes.epoch;
  wire::ResidentDelta out{changes.epoch, changes.base_epoch, {}, {}};
  if (changes.base_epoch == 0) reported_.clear();
  for (const ResidentKey& key : changes.added) {
    out.added.push_back({key.slot, key.ref});
    reported_.insert(key);
  }
  for (const ResidentKey& key : changes.removed) {
    out.removed.push_back({key.slot, key.ref});
    reported_.erase(key);
  }
  release_pins();
  pinned_.assign(reported_.begin(), reported_.end());
  for (const ResidentKey& key : pinned_) residents_.pin(key);
  return out;
}

void Selector::remember(const std::vector<wire::ChunkSummary>& chunks) {
  for (const wire::ChunkSummary& chunk : chunks) {
    window_.push_back(chunk);
    window_tokens_ += chunk.tokens;
  }
  const auto more_than_needed = [&] {
    const wire::ChunkSummary& oldest = window_.front();
    return window_tokens_ - oldest.tokens >= wire::kWindowTokens ||
           window_.size() * oldest.mean.size() > wire::kMaxChunkValues;
  };
  while (window_.size() > 1 && more_than_needed()) {
    window_tokens_ -= window_.front().tokens;
    window_.pop_front();
  }
}

void Selector::tell_whole_window(wire::Observation& observation) const {
  observation.chunks.assign(window_.begin(), window_.end());
  observation.whole_window = true;
}

void Selector::release_pins() {
  for (const ResidentKey& key : pinned_) residents_.unpin(key);
  pinned_.clear();
}

Result<Advice> Selector::observe(wire::Observation observation, TimePoint deadline) {
  const TimePoint start = clock_.now();
  observation.session = open_.session;
  observation.residents = report();
  remember(observation.chunks);
  if (!window_known_) tell_whole_window(observation);
  const std::uint64_t step = observation.step;
  auto reply = reopened(observation, link_.call_if_connected(observation, {}, deadline), deadline);
  known_epoch_ = 0;
  window_known_ = false;
  if (!reply) return reply.error();
  auto* directive = std::get_if<wire::Directive>(&reply.value().body);
  if (directive == nullptr) return unexpected("Directive");
  if (directive->session != open_.session || directive->step != step) {
    ++late_;
    log::warn("session {:x}: directive for step {} dropped at step {}", open_.session,
              directive->step, step);
    return Error{ErrorCode::kTimeout, "directive: expected step " + std::to_string(step) +
                                          ", found step " + std::to_string(directive->step)};
  }
  if (!directive->need_residents) known_epoch_ = sent_epoch_;
  window_known_ = true;
  return Advice{std::move(*directive), std::move(reply.value().parts),
                std::chrono::duration<double, std::micro>(clock_.now() - start).count()};
}

Result<FetchedMemory> Selector::fetch(const MemoryRef& ref, TimePoint deadline) {
  const wire::FetchMemory request{open_.session, ref};
  MEMSLOT_TRY(wire::Message reply, reopened(request, link_.call(request, {}, deadline), deadline));
  auto* body = std::get_if<wire::MemoryReply>(&reply.body);
  if (body == nullptr || reply.parts.size() != 1) return unexpected("MemoryReply with one part");
  return FetchedMemory{std::move(body->version), std::move(reply.parts[0])};
}

Status Selector::close(wire::Observation last, TimePoint deadline) {
  release_pins();
  if (!opened_) return ok();
  opened_ = false;
  last.session = open_.session;
  MEMSLOT_TRY(link_.call(wire::CloseSession{open_.session, std::move(last)}, {}, deadline));
  return ok();
}

}  // namespace memslot
