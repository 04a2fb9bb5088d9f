#include <algorithm>  // copy

#include "shared/wire/codec_parts.h"  // pack, unpack, Reader

// Observation and Directive (the hot path), and memories that travel.
namespace memslot::wire {

static_assert(static_cast<int>(fbs::ActiveReason::Late) == static_cast<int>(ActiveReason::kLate));
static_assert(static_cast<int>(fbs::ActionKind::Use) == static_cast<int>(ActionKind::kUse));

namespace {

Offset<fbs::ActiveMemory> pack(Builder& b, const ActiveMemory& m) {
  const auto ref = wire::pack(b, m.ref);
  return fbs::CreateActiveMemory(b, m.slot, ref, same_value<fbs::ActiveReason>(m.reason));
}

Offset<fbs::Resident> pack(Builder& b, const Resident& m) {
  const auto ref = wire::pack(b, m.ref);
  return fbs::CreateResident(b, m.slot, ref);
}

Offset<fbs::SlotAction> pack(Builder& b, const SlotAction& m) {
  const auto ref = wire::pack(b, m.ref);
  const auto sha = pack_sha(m.sha256);
  return fbs::CreateSlotAction(b, m.slot, same_value<fbs::ActionKind>(m.action), ref, &sha, m.part);
}

template <class Table, class T>
Offset<flatbuffers::Vector<Offset<Table>>> pack_list(Builder& b, const std::vector<T>& list) {
  std::vector<Offset<Table>> out;
  out.reserve(list.size());
  for (const T& element : list) out.push_back(pack(b, element));
  return b.CreateVector(out);
}

Offset<fbs::ResidentDelta> pack(Builder& b, const ResidentDelta& m) {
  const auto added = pack_list<fbs::Resident>(b, m.added);
  const auto removed = pack_list<fbs::Resident>(b, m.removed);
  return fbs::CreateResidentDelta(b, m.epoch, m.base_epoch, added, removed);
}

ResidentDelta unpack_residents(Reader& r, const fbs::ResidentDelta* m) {
  if (m == nullptr) return {};
  const auto one = [&](const fbs::Resident& e) { return Resident{e.slot(), r.ref(e.ref())}; };
  return {.epoch = m->epoch(),
          .base_epoch = m->base_epoch(),
          .added = r.list("residents added", m->added(), kMaxResidents, one),
          .removed = r.list("residents removed", m->removed(), kMaxResidents, one)};
}

std::optional<float> as_std(flatbuffers::Optional<float> value) {
  return value.has_value() ? std::optional<float>(*value) : std::nullopt;
}

flatbuffers::Optional<float> as_fbs(const std::optional<float>& value) {
  return value ? flatbuffers::Optional<float>(*value) : flatbuffers::nullopt;
}

// The means one after the other: one vector, however many chunks.
Offset<flatbuffers::Vector<float>> pack_means(Builder& b, const std::vector<ChunkSummary>& chunks) {
  std::size_t values = 0;
  for (const ChunkSummary& chunk : chunks) values += chunk.mean.size();
  float* out = nullptr;
  const auto means = b.CreateUninitializedVector(values, &out);
  for (const ChunkSummary& chunk : chunks) {
    out = std::copy(chunk.mean.begin(), chunk.mean.end(), out);
  }
  return means;
}

std::vector<ChunkSummary> unpack_chunks(Reader& r, const fbs::Observation& m) {
  const std::vector<float> means = r.floats("chunk means", m.chunk_means(), kMaxChunkValues);
  const std::size_t count = m.chunk_tokens() == nullptr ? 0 : m.chunk_tokens()->size();
  if (!r.fits("chunks", count, kMaxChunks)) return {};
  const std::size_t width = count == 0 ? 0 : means.size() / count;
  if (width * count != means.size()) {
    r.fail(corrupt("chunk means", "as many for each of " + std::to_string(count) + " chunks",
                   std::to_string(means.size()) + " values"));
    return {};
  }
  std::vector<ChunkSummary> out(count);
  auto from = means.begin();
  for (std::size_t i = 0; i < count; ++i, from += static_cast<std::ptrdiff_t>(width)) {
    out[i].mean.assign(from, from + static_cast<std::ptrdiff_t>(width));
    out[i].tokens = m.chunk_tokens()->Get(static_cast<flatbuffers::uoffset_t>(i));
  }
  return out;
}

}  // namespace

Offset<fbs::Observation> pack(Builder& b, const Observation& m) {
  const auto means = pack_means(b, m.chunks);
  std::vector<std::uint32_t> counts;
  counts.reserve(m.chunks.size());
  for (const ChunkSummary& chunk : m.chunks) counts.push_back(chunk.tokens);
  const auto tokens = b.CreateVector(counts);
  const auto active = pack_list<fbs::ActiveMemory>(b, m.active);
  const auto residents = pack(b, m.residents);
  return fbs::CreateObservation(b, m.session, m.step, m.entropy, m.surprise, as_fbs(m.gain),
                                m.tokens, m.sampled, active, residents, means, tokens,
                                m.whole_window, m.steps_since_swap);
}

Observation unpack(Reader& r, const fbs::Observation& m) {
  return {.session = m.session(),
          .step = m.step(),
          .chunks = unpack_chunks(r, m),
          .whole_window = m.whole_window(),
          .entropy = m.entropy(),
          .surprise = m.surprise(),
          .gain = as_std(m.gain()),
          .tokens = m.tokens(),
          .sampled = m.sampled(),
          .active = r.list(
              "active memories", m.active(), kMaxSlots,
              [&](const fbs::ActiveMemory& a) {
                return ActiveMemory{a.slot(), r.ref(a.ref()), same_value<ActiveReason>(a.reason())};
              }),
          .residents = unpack_residents(r, m.residents()),
          .steps_since_swap = m.steps_since_swap()};
}

Offset<fbs::Directive> pack(Builder& b, const Directive& m) {
  const auto actions = pack_list<fbs::SlotAction>(b, m.actions);
  return fbs::CreateDirective(b, m.session, m.step, actions, m.log_prob, m.candidates,
                              m.need_residents);
}

Directive unpack(Reader& r, const fbs::Directive& m) {
  return {.session = m.session(),
          .step = m.step(),
          .actions = r.list("actions", m.actions(), kMaxSlots,
                            [&](const fbs::SlotAction& a) {
                              return SlotAction{a.slot(), same_value<ActionKind>(a.action()),
                                                r.ref(a.ref()), r.sha(a.sha256()), a.part()};
                            }),
          .log_prob = m.log_prob(),
          .candidates = m.candidates(),
          .need_residents = m.need_residents()};
}

Offset<fbs::FetchMemory> pack(Builder& b, const FetchMemory& m) {
  const auto ref = pack(b, m.ref);
  return fbs::CreateFetchMemory(b, m.session, ref);
}

FetchMemory unpack(Reader& r, const fbs::FetchMemory& m) { return {m.session(), r.ref(m.ref())}; }

Offset<fbs::MemoryReply> pack(Builder& b, const MemoryReply& m) {
  const auto version = b.CreateString(to_json(m.version));
  return fbs::CreateMemoryReply(b, m.session, version);
}

MemoryReply unpack(Reader& r, const fbs::MemoryReply& m) {
  return {m.session(), r.version(m.version())};
}

Offset<fbs::WriteBack> pack(Builder& b, const WriteBack& m) {
  const auto expected = b.CreateString(m.expected);
  const auto version = b.CreateString(to_json(m.version));
  return fbs::CreateWriteBack(b, m.session, m.step, expected, version);
}

WriteBack unpack(Reader& r, const fbs::WriteBack& m) {
  return {m.session(), m.step(), r.word(m.expected()), r.version(m.version())};
}

Offset<fbs::WriteBackReply> pack(Builder& b, const WriteBackReply& m) {
  const auto version = b.CreateString(to_json(m.version));
  return fbs::CreateWriteBackReply(b, m.conflict, version);
}

WriteBackReply unpack(Reader& r, const fbs::WriteBackReply& m) {
  return {m.conflict(), r.version(m.version())};
}

}  // namespace memslot::wire
