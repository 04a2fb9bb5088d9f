#include "shared/wire/codec_parts.h"  // pack, unpack, Reader

#include <cstring>

// Hello, HelloReply, Heartbeat, ErrorReply, OpenSession, CloseSession and what all bodies share.
namespace memslot::wire {

static_assert(static_cast<int>(fbs::PeerRole::Client) == static_cast<int>(PeerRole::kClient));
static_assert(static_cast<int>(fbs::SelectMode::Async) == static_cast<int>(SelectMode::kAsync));
static_assert(static_cast<int>(fbs::KvMode::Recompute) == static_cast<int>(KvMode::kRecompute));
static_assert(static_cast<int>(fbs::MlpForm::GeluTanh) == static_cast<int>(MlpForm::kGeluTanh));

// --- Reader --------------------------------------------------------------------------------------

bool Reader::fits(const char* what, std::size_t count, std::size_t limit) {
  if (count <= limit) return true;
  fail(invalid(std::string(what) + " count", "at most " + std::to_string(limit), count));
  return false;
}

std::string Reader::word(const flatbuffers::String* s) {
  if (s == nullptr || !fits("word bytes", s->size(), kMaxWordBytes)) return {};
  return s->str();
}

Sha256 Reader::sha(const fbs::Sha256* s) {
  Sha256 out;
  if (s != nullptr) std::memcpy(out.bytes.data(), s->bytes()->Data(), out.bytes.size());
  return out;
}

MemoryRef Reader::ref(const fbs::MemoryRef* r) {
  if (r == nullptr) return {};
  return {word(r->ns()), word(r->id()), r->version()};
}

MemoryVersion Reader::version(const flatbuffers::String* json) {
  if (json == nullptr) {
    fail(corrupt("memory version", "JSON", "nothing"));
    return {};
  }
  auto parsed = memory_version_from_json({json->c_str(), json->size()});
  if (!parsed) {
    fail(parsed.error());
    return {};
  }
  return std::move(parsed).value();
}

std::vector<float> Reader::floats(const char* what, const flatbuffers::Vector<float>* from,
                                  std::size_t limit) {
  if (from == nullptr || !fits(what, from->size(), limit)) return {};
  // Little-endian hosts only, as all of memslot: the vector's bytes are the floats.
  return {from->data(), from->data() + from->size()};
}

// --- shared parts --------------------------------------------------------------------------------

fbs::Sha256 pack_sha(const Sha256& sha) {
  return fbs::Sha256(flatbuffers::span<const std::uint8_t, 32>(sha.bytes.data(), 32));
}

Offset<fbs::MemoryRef> pack(Builder& b, const MemoryRef& ref) {
  const auto ns = b.CreateString(ref.ns);
  const auto id = b.CreateString(ref.id);
  return fbs::CreateMemoryRef(b, ns, id, ref.version);
}

Offset<flatbuffers::Vector<Offset<fbs::SlotInfo>>> pack(Builder& b,
                                                        const std::vector<SlotInfo>& slots) {
  std::vector<Offset<fbs::SlotInfo>> out;
  out.reserve(slots.size());
  for (const SlotInfo& s : slots) {
    out.push_back(
        fbs::CreateSlotInfo(b, s.layer, same_value<fbs::MlpForm>(s.form), s.d_model, s.d_ff));
  }
  return b.CreateVector(out);
}

std::vector<SlotInfo> unpack_slots(Reader& r,
                                   const flatbuffers::Vector<Offset<fbs::SlotInfo>>* slots) {
  return r.list("slots", slots, kMaxSlots, [](const fbs::SlotInfo& s) {
    return SlotInfo{s.layer(), same_value<MlpForm>(s.form()), s.d_model(), s.d_ff()};
  });
}

// --- bodies --------------------------------------------------------------------------------------

Offset<fbs::Hello> pack(Builder& b, const Hello& m) {
  const auto build = b.CreateString(m.build);
  const auto model_name = b.CreateString(m.model_name);
  const auto slots = pack(b, m.slots);
  const auto model = pack_sha(m.model);
  return fbs::CreateHello(b, same_value<fbs::PeerRole>(m.role), m.incarnation, build, &model,
                          model_name, slots, m.learn_workers);
}

Hello unpack(Reader& r, const fbs::Hello& m) {
  return {.role = same_value<PeerRole>(m.role()),
          .incarnation = m.incarnation(),
          .build = r.text(m.build()),
          .model = r.sha(m.model()),
          .model_name = r.text(m.model_name()),
          .slots = unpack_slots(r, m.slots()),
          .learn_workers = m.learn_workers()};
}

Offset<fbs::HelloReply> pack(Builder& b, const HelloReply& m) {
  const auto build = b.CreateString(m.build);
  return fbs::CreateHelloReply(b, m.incarnation, build, m.heartbeat_ms);
}

HelloReply unpack(Reader& r, const fbs::HelloReply& m) {
  return {m.incarnation(), r.text(m.build()), m.heartbeat_ms()};
}

Offset<fbs::Heartbeat> pack(Builder& b, const Heartbeat& m) {
  return fbs::CreateHeartbeat(b, m.incarnation);
}

Heartbeat unpack(Reader&, const fbs::Heartbeat& m) { return {m.incarnation()}; }

Offset<fbs::ErrorReply> pack(Builder& b, const ErrorReply& m) {
  const auto message = b.CreateString(m.message);
  return fbs::CreateErrorReply(b, static_cast<int>(m.code), message);
}

ErrorReply unpack(Reader& r, const fbs::ErrorReply& m) {
  return {static_cast<ErrorCode>(m.code()), r.text(m.message())};
}

Offset<fbs::OpenSession> pack(Builder& b, const OpenSession& m) {
  const auto slots = pack(b, m.slots);
  const auto namespaces = b.CreateVectorOfStrings(m.namespaces);
  const auto policy = b.CreateString(m.policy);
  const auto sampling = b.CreateString(m.sampling);
  const auto model = pack_sha(m.model);
  return fbs::CreateOpenSession(b, m.session, m.incarnation, &model, slots, namespaces, policy,
                                m.seed, m.explore, same_value<fbs::SelectMode>(m.select),
                                same_value<fbs::KvMode>(m.kv), sampling);
}

OpenSession unpack(Reader& r, const fbs::OpenSession& m) {
  return {.session = m.session(),
          .incarnation = m.incarnation(),
          .model = r.sha(m.model()),
          .slots = unpack_slots(r, m.slots()),
          .namespaces = r.list("namespaces", m.namespaces(), kMaxNamespaces,
                               [&](const flatbuffers::String& s) { return r.word(&s); }),
          .policy = r.text(m.policy()),
          .seed = m.seed(),
          .explore = m.explore(),
          .select = same_value<SelectMode>(m.select()),
          .kv = same_value<KvMode>(m.kv()),
          .sampling = r.text(m.sampling())};
}

Offset<fbs::OpenSessionReply> pack(Builder& b, const OpenSessionReply& m) {
  const auto policy = b.CreateString(m.policy);
  const auto digest = b.CreateString(m.policy_digest);
  return fbs::CreateOpenSessionReply(b, m.session, policy, digest);
}

OpenSessionReply unpack(Reader& r, const fbs::OpenSessionReply& m) {
  return {m.session(), r.text(m.policy()), r.word(m.policy_digest())};
}

Offset<fbs::CloseSession> pack(Builder& b, const CloseSession& m) {
  const auto last = pack(b, m.last);
  return fbs::CreateCloseSession(b, m.session, last);
}

CloseSession unpack(Reader& r, const fbs::CloseSession& m) {
  if (m.last() == nullptr) {
    r.fail(corrupt("CloseSession.last", "an observation", "nothing"));
    return {};
  }
  return {m.session(), unpack(r, *m.last())};
}

Offset<fbs::CloseSessionReply> pack(Builder& b, const CloseSessionReply& m) {
  return fbs::CreateCloseSessionReply(b, m.session);
}

CloseSessionReply unpack(Reader&, const fbs::CloseSessionReply& m) { return {m.session()}; }

}  // namespace memslot::wire
