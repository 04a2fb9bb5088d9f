#include "shared/wire/validate.h"

#include <algorithm>
#include <cmath>

#include "shared/wire/codec.h"  // body_name
#include "shared/wire/limits.h"

namespace memslot::wire {
namespace {

// --- rules ---------------------------------------------------------------------------------------

template <class Enum>
Status listed(const char* what, Enum value, Enum last) {
  const auto number = static_cast<int>(value);
  if (number >= 1 && number <= static_cast<int>(last)) return ok();
  return corrupt(what, "1 to " + std::to_string(static_cast<int>(last)), number);
}

Status error_code(ErrorCode code) { return listed("error code", code, ErrorCode::kInternal); }

Status finite(const char* what, double value) {
  if (std::isfinite(value)) return ok();
  return corrupt(what, "a finite number", value);
}

Status at_most(const char* what, std::size_t limit, std::size_t found) {
  if (found <= limit) return ok();
  return invalid(what, "at most " + std::to_string(limit), found);
}

Status word(const char* what, const std::string& text) {
  return at_most(what, kMaxWordBytes, text.size());
}

Status name(const char* what, const std::string& text) {
  if (text.empty()) return ok();
  auto status = check_name(what, text);
  if (status) return ok();
  return Error{ErrorCode::kCorruption, status.error().message};
}

Status good_ref(const MemoryRef& ref) {
  MEMSLOT_TRY(name("namespace", ref.ns));
  return name("memory", ref.id);
}

// `version` says whether the reference must name one.
Status some_memory(const char* what, const MemoryRef& ref, bool version) {
  if (ref.id.empty() || ref.ns.empty()) return corrupt(what, "a memory", "none");
  if (version && ref.version == 0) return corrupt(what, "a version", "the head");
  return good_ref(ref);
}

Status good_slots(const std::vector<SlotInfo>& slots) {
  MEMSLOT_TRY(at_most("slots", kMaxSlots, slots.size()));
  for (const SlotInfo& slot : slots) {
    MEMSLOT_TRY(listed("MLP form", slot.form, MlpForm::kGeluTanh));
    if (slot.layer < 0) return corrupt("slot layer", "at least 0", slot.layer);
    if (slot.d_model < 1) return corrupt("slot d_model", "at least 1", slot.d_model);
    if (slot.d_ff < 1) return corrupt("slot d_ff", "at least 1", slot.d_ff);
  }
  return ok();
}

Status good_version(const MemoryVersion& v) {
  MEMSLOT_TRY(good_ref(v.ref));
  MEMSLOT_TRY(name("source", v.source));
  MEMSLOT_TRY(word("token bytes", v.token));
  MEMSLOT_TRY(word("parent token bytes", v.parent));
  const LearnStats& s = v.stats;
  for (const double value :
       {s.nll_before, s.nll_after, s.recall_before.value_or(0), s.recall.value_or(0),
        s.locality.value_or(0), s.wise_min_activation, s.wall_seconds}) {
    MEMSLOT_TRY(finite("learn statistics", value));
  }
  return ok();
}

Status good_residents(const std::vector<Resident>& residents) {
  MEMSLOT_TRY(at_most("residents", kMaxResidents, residents.size()));
  for (const Resident& r : residents) {
    MEMSLOT_TRY(some_memory("resident", r.ref, /*version=*/true));
  }
  return ok();
}

// --- bodies --------------------------------------------------------------------------------------

Status check(const Hello& m) {
  MEMSLOT_TRY(listed("peer role", m.role, PeerRole::kClient));
  return good_slots(m.slots);
}
Status check(const HelloReply& m) {
  if (m.heartbeat_ms == 0) return corrupt("heartbeat", "at least 1 ms", 0);
  return ok();
}
Status check(const Heartbeat&) { return ok(); }
Status check(const ErrorReply& m) { return error_code(m.code); }

Status check(const OpenSession& m) {
  MEMSLOT_TRY(good_slots(m.slots));
  MEMSLOT_TRY(at_most("namespaces", kMaxNamespaces, m.namespaces.size()));
  for (const std::string& ns : m.namespaces) {
    if (ns.empty()) return corrupt("namespace", "a name", "none");
    MEMSLOT_TRY(name("namespace", ns));
  }
  MEMSLOT_TRY(listed("select mode", m.select, SelectMode::kAsync));
  return listed("KV mode", m.kv, KvMode::kRecompute);
}
Status check(const OpenSessionReply& m) { return word("policy digest bytes", m.policy_digest); }

Status good_chunks(const std::vector<ChunkSummary>& chunks) {
  MEMSLOT_TRY(at_most("chunks", kMaxChunks, chunks.size()));
  // A sum of products with zero is NaN if any element is not finite: one pass, no branches.
  float poison = 0;
  for (const ChunkSummary& chunk : chunks) {
    const std::size_t width = chunk.mean.size();
    if (chunk.tokens == 0) return corrupt("chunk tokens", "at least 1", 0);
    if (width == 0) return corrupt("chunk mean", "at least 1 value", 0);
    if (width != chunks[0].mean.size()) return corrupt("chunk mean", chunks[0].mean.size(), width);
    MEMSLOT_TRY(at_most("chunk mean", kMaxHidden, width));
    for (const float x : chunk.mean) poison += x * 0.0f;
  }
  if (poison != 0) return corrupt("chunk mean", "finite numbers", "NaN or infinity");
  const std::size_t values = chunks.empty() ? 0 : chunks.size() * chunks[0].mean.size();
  return at_most("chunk values", kMaxChunkValues, values);
}

Status check(const Observation& m) {
  MEMSLOT_TRY(good_chunks(m.chunks));
  MEMSLOT_TRY(finite("entropy", m.entropy));
  MEMSLOT_TRY(finite("surprise", m.surprise));
  MEMSLOT_TRY(finite("gain", m.gain.value_or(0)));
  MEMSLOT_TRY(at_most("active memories", kMaxSlots, m.active.size()));
  for (const ActiveMemory& a : m.active) {
    MEMSLOT_TRY(good_ref(a.ref));
    MEMSLOT_TRY(listed("active reason", a.reason, ActiveReason::kLate));
  }
  MEMSLOT_TRY(good_residents(m.residents.added));
  return good_residents(m.residents.removed);
}

Status check(const SlotAction& a) {
  MEMSLOT_TRY(listed("action", a.action, ActionKind::kUse));
  if (a.action == ActionKind::kUse) return some_memory("action", a.ref, /*version=*/true);
  if (a.part != -1) return corrupt("action part", "-1 without a memory", a.part);
  return good_ref(a.ref);
}

Status check(const Directive& m) {
  MEMSLOT_TRY(at_most("actions", kMaxSlots, m.actions.size()));
  for (const SlotAction& a : m.actions) {
    MEMSLOT_TRY(check(a));
  }
  return finite("log_prob", m.log_prob);
}

Status check(const FetchMemory& m) { return some_memory("fetch", m.ref, /*version=*/false); }
Status check(const MemoryReply& m) { return good_version(m.version); }
Status check(const WriteBack& m) {
  MEMSLOT_TRY(word("expected token bytes", m.expected));
  return good_version(m.version);
}
Status check(const WriteBackReply& m) { return good_version(m.version); }
Status check(const CloseSession& m) { return check(m.last); }
Status check(const CloseSessionReply&) { return ok(); }

Status check(const AssignLearn& m) {
  MEMSLOT_TRY(word("job bytes", m.job));
  MEMSLOT_TRY(word("expected token bytes", m.expected));
  MEMSLOT_TRY(name("namespace", m.ns));
  MEMSLOT_TRY(name("source", m.source));
  return good_ref(m.target);
}
Status check(const LearnProgress& m) {
  MEMSLOT_TRY(word("job bytes", m.job));
  MEMSLOT_TRY(word("phase bytes", m.phase));
  MEMSLOT_TRY(finite("loss", m.loss));
  return finite("recall", m.recall);
}
Status check(const LearnResult& m) {
  MEMSLOT_TRY(word("job bytes", m.job));
  return good_version(m.version);
}
Status check(const LearnFailed& m) {
  MEMSLOT_TRY(word("job bytes", m.job));
  return error_code(m.code);
}
Status check(const LearnAck& m) { return word("job bytes", m.job); }
Status check(const CancelLearn& m) { return word("job bytes", m.job); }

Status check(const SubmitTask& m) { return word("task kind bytes", m.kind); }
Status check(const AssignTask& m) { return word("task kind bytes", m.kind); }
Status check(const TaskEvent& m) {
  if (!m.error) return ok();
  if (!m.final) return corrupt("task event error", "only with the final event", "one before it");
  return check(*m.error);
}
Status check(const CancelTask&) { return ok(); }
Status check(const AdminRequest& m) { return word("verb bytes", m.verb); }
Status check(const AdminReply&) { return ok(); }
Status check(const TraceEvents&) { return ok(); }
Status check(const TraceEventsReply&) { return ok(); }

// --- parts ---------------------------------------------------------------------------------------

struct PartCount {
  std::size_t least = 0;
  std::size_t most = 0;
};

template <class T>
PartCount part_count(const T&) {
  return {0, 0};
}
PartCount part_count(const MemoryReply&) { return {1, 1}; }
PartCount part_count(const WriteBack&) { return {1, 1}; }
PartCount part_count(const LearnResult&) { return {2, 2}; }
PartCount part_count(const TraceEvents&) { return {1, 1}; }
PartCount part_count(const AdminRequest&) { return {0, 1}; }
PartCount part_count(const AdminReply&) { return {0, 1}; }
// Every part is some action's payload: the highest index says how many there are.
PartCount part_count(const Directive& m) {
  std::int32_t highest = -1;
  for (const SlotAction& a : m.actions) highest = std::max(highest, a.part);
  const auto count = static_cast<std::size_t>(highest + std::int64_t{1});
  return {count, count};
}

Status check_indices(const Directive& m) {
  for (const SlotAction& a : m.actions) {
    if (a.part < -1 || a.part >= static_cast<std::int32_t>(kMaxParts)) {
      return corrupt("action part", "-1 to " + std::to_string(kMaxParts - 1), a.part);
    }
  }
  return ok();
}

Status check_parts(const Message& message) {
  MEMSLOT_TRY(at_most("message parts", kMaxParts, message.parts.size()));
  if (const auto* directive = std::get_if<Directive>(&message.body)) {
    MEMSLOT_TRY(check_indices(*directive));
  }
  const PartCount count = std::visit([](const auto& m) { return part_count(m); }, message.body);
  if (message.parts.size() < count.least || message.parts.size() > count.most) {
    const std::string expected = count.least == count.most ? std::to_string(count.least)
                                                           : std::to_string(count.least) + " to " +
                                                                 std::to_string(count.most);
    return corrupt("message parts", expected, message.parts.size());
  }
  for (const SharedBytes& part : message.parts) {
    MEMSLOT_TRY(at_most("part bytes", kMaxPartBytes, part->size()));
  }
  return ok();
}

}  // namespace

Status validate(const Message& message) {
  Status status = std::visit([](const auto& m) { return check(m); }, message.body);
  if (status) status = check_parts(message);
  if (!status) return status.error().with_context(body_name(message.body));
  return ok();
}

}  // namespace memslot::wire
