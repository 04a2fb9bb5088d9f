#include "generator/runtime/outer_parameters.h"

#include <fmt/format.h>

#include <algorithm>  // min, max

#include "generator/runtime/slot_infos.h"
#include "generator/slot/slot.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"

namespace memslot {

OuterParameters::OuterParameters(const Gpt& gpt, const Sha256& model_digest, ControllerLink& link,
                                 const Clock& clock, std::uint64_t seed)
    : gpt_(gpt), model_digest_(model_digest), link_(link), clock_(clock), seed_(seed) {}

TimePoint OuterParameters::deadline() const {
  return deadline_in(clock_, std::chrono::seconds(10));
}

DeltaShape OuterParameters::shape() const {
  const std::int64_t width = std::min(gpt_.config().head_dim, 1024);
  const std::int64_t heads = std::clamp<std::int64_t>(8192 / width, 1, gpt_.config().heads);
  return {heads, width, width, /*output_gate=*/false};
}

Result<std::shared_ptr<const MemoryPayload>> OuterParameters::get(std::size_t slot,
                                                                  MemoryKind kind) {
  if (kind != MemoryKind::kDelta) {
    return Error{
        ErrorCode::kNotSupported,
        fmt::format("outer parameters: expected kind delta, found {}", memory_kind_name(kind))};
  }
  const std::lock_guard lock(mutex_);
  if (const auto found = known_.find(slot); found != known_.end()) return found->second;
  MEMSLOT_TRY(MemoryPayload payload, fetch_or_make(slot));
  auto shared = std::make_shared<const MemoryPayload>(std::move(payload));
  known_[slot] = shared;
  return shared;
}

Result<MemoryPayload> OuterParameters::fetch_or_make(std::size_t slot) {
  wire::OpenSession open;
  open.session = random_nonce();
  open.incarnation = link_.incarnation();
  open.model = model_digest_;
  open.slots = slot_infos(gpt_);
  open.namespaces = {"outer"};
  open.policy = "base";
  open.sampling = "{}";
  MEMSLOT_TRY(link_.call(open, {}, deadline()));
  const MemoryRef ref{"outer",
                      fmt::format("delta-l{}-s{}", gpt_.options().slot_layers[slot], seed_), 0};
  auto payload = fetch(open.session, ref);
  if (!payload && payload.error().code == ErrorCode::kNotFound) {
    payload = publish(open.session, ref, slot);
  }
  wire::Observation last;
  last.session = open.session;
  auto closed = link_.call(wire::CloseSession{open.session, std::move(last)}, {}, deadline());
  if (!closed) log::debug("outer parameters: {}", closed.error().message);
  if (!payload) return payload.error().with_context(ref.text());
  MEMSLOT_TRY(check_signature(expected_signature(gpt_, model_digest_, slot, MemoryKind::kDelta),
                              payload.value().signature()));
  return payload;
}

Result<MemoryPayload> OuterParameters::fetch(std::uint64_t session, const MemoryRef& ref) {
  MEMSLOT_TRY(const wire::Message reply,
              link_.call(wire::FetchMemory{session, ref}, {}, deadline()));
  const auto* body = std::get_if<wire::MemoryReply>(&reply.body);
  if (body == nullptr || reply.parts.size() != 1) {
    return Error{ErrorCode::kInternal, "reply: expected MemoryReply, found another message"};
  }
  if (sha256(*reply.parts[0]) != body->version.sha256) {
    return corrupt("sha256", body->version.sha256.hex(), sha256(*reply.parts[0]).hex());
  }
  return MemoryPayload::parse(*reply.parts[0]);
}

Result<MemoryPayload> OuterParameters::publish(std::uint64_t session, const MemoryRef& ref,
                                               std::size_t slot) {
  MEMSLOT_TRY(FreshDelta fresh,
              make_fresh_delta(expected_signature(gpt_, model_digest_, slot, MemoryKind::kDelta),
                               shape(), DType::kBF16, seed_));
  const auto bytes = fresh.outer.bytes();
  wire::WriteBack body;
  body.session = session;
  body.version.ref = ref;
  body.version.token = fmt::format("outer-{:016x}", random_nonce());
  body.version.signature = fresh.outer.signature();
  body.version.dtype = fresh.outer.dtype();
  body.version.source = ref.id;
  body.version.origin = VersionOrigin::kWriteBack;
  body.version.origin_id = fmt::format("{:016x}", session);
  body.version.created_unix_ms = clock_.unix_ms();
  body.version.payload_bytes = bytes.size();
  body.version.sha256 = sha256(bytes);
  MEMSLOT_TRY(const wire::Message reply,
              link_.call(std::move(body), {share_bytes({bytes.begin(), bytes.end()})}, deadline()));
  const auto* stored = std::get_if<wire::WriteBackReply>(&reply.body);
  if (stored != nullptr && stored->conflict) return fetch(session, ref);
  log::info("{} made and published", ref.text());
  return std::move(fresh.outer);
}

}  // namespace memslot
