#include "shared/wire/codec_parts.h"  // pack, unpack, Reader

// Learn jobs.
namespace memslot::wire {

Offset<fbs::AssignLearn> pack(Builder& b, const AssignLearn& m) {
  const auto job = b.CreateString(m.job);
  const auto ns = b.CreateString(m.ns);
  const auto source = b.CreateString(m.source);
  const auto text = b.CreateString(m.text);
  const auto config = b.CreateString(m.config);
  const auto target = pack(b, m.target);
  const auto expected = b.CreateString(m.expected);
  return fbs::CreateAssignLearn(b, job, m.lease, ns, source, text, config, target, expected);
}

AssignLearn unpack(Reader& r, const fbs::AssignLearn& m) {
  return {.job = r.word(m.job()),
          .lease = m.lease(),
          .ns = r.word(m.ns()),
          .source = r.word(m.source()),
          .text = r.text(m.text()),
          .config = r.text(m.config()),
          .target = r.ref(m.target()),
          .expected = r.word(m.expected())};
}

Offset<fbs::LearnProgress> pack(Builder& b, const LearnProgress& m) {
  const auto job = b.CreateString(m.job);
  const auto phase = b.CreateString(m.phase);
  return fbs::CreateLearnProgress(b, job, m.lease, m.step, m.steps, m.loss, m.recall, phase);
}

LearnProgress unpack(Reader& r, const fbs::LearnProgress& m) {
  return {r.word(m.job()), m.lease(), m.step(), m.steps(), m.loss(), m.recall(), r.word(m.phase())};
}

Offset<fbs::LearnResult> pack(Builder& b, const LearnResult& m) {
  const auto job = b.CreateString(m.job);
  const auto version = b.CreateString(to_json(m.version));
  return fbs::CreateLearnResult(b, job, m.lease, version);
}

LearnResult unpack(Reader& r, const fbs::LearnResult& m) {
  return {r.word(m.job()), m.lease(), r.version(m.version())};
}

Offset<fbs::LearnFailed> pack(Builder& b, const LearnFailed& m) {
  const auto job = b.CreateString(m.job);
  const auto message = b.CreateString(m.message);
  return fbs::CreateLearnFailed(b, job, m.lease, static_cast<int>(m.code), message);
}

LearnFailed unpack(Reader& r, const fbs::LearnFailed& m) {
  return {r.word(m.job()), m.lease(), static_cast<ErrorCode>(m.code()), r.text(m.message())};
}

Offset<fbs::LearnAck> pack(Builder& b, const LearnAck& m) {
  const auto job = b.CreateString(m.job);
  const auto message = b.CreateString(m.message);
  return fbs::CreateLearnAck(b, job, m.lease, m.accepted, message);
}

LearnAck unpack(Reader& r, const fbs::LearnAck& m) {
  return {r.word(m.job()), m.lease(), m.accepted(), r.text(m.message())};
}

Offset<fbs::CancelLearn> pack(Builder& b, const CancelLearn& m) {
  const auto job = b.CreateString(m.job);
  return fbs::CreateCancelLearn(b, job, m.lease);
}

CancelLearn unpack(Reader& r, const fbs::CancelLearn& m) { return {r.word(m.job()), m.lease()}; }

}  // namespace memslot::wire
