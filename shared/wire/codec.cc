#include "shared/wire/codec.h"

#include <cstring>
#include <utility>

#include "shared/base/digest.h"       // xxh128
#include "shared/wire/codec_parts.h"  // pack, unpack, Reader
#include "shared/wire/validate.h"     // validate

namespace memslot::wire {
namespace {

// Nesting is at most envelope > body > observation > residents > resident > ref; the number of
// tables is that of two full resident lists and some room.
constexpr flatbuffers::uoffset_t kMaxDepth = 16;
constexpr flatbuffers::uoffset_t kMaxTables = 4 * kMaxResidents + 4096;

static_assert(static_cast<std::size_t>(fbs::Body::MAX) == std::variant_size_v<Body>,
              "envelope.fbs and wire::Body list the same bodies in the same order");

constexpr fbs::Body body_type(const Body& body) { return static_cast<fbs::Body>(body.index() + 1); }

template <class T>
Body read(Reader& r, const fbs::Envelope& envelope) {
  return unpack(r, *static_cast<const T*>(envelope.body()));
}

// REQUIRES: a verified envelope with a body.
Result<Body> unpack_body(Reader& r, const fbs::Envelope& e) {
  switch (e.body_type()) {
    case fbs::Body::Hello: return read<fbs::Hello>(r, e);
    case fbs::Body::HelloReply: return read<fbs::HelloReply>(r, e);
    case fbs::Body::Heartbeat: return read<fbs::Heartbeat>(r, e);
    case fbs::Body::ErrorReply: return read<fbs::ErrorReply>(r, e);
    case fbs::Body::OpenSession: return read<fbs::OpenSession>(r, e);
    case fbs::Body::OpenSessionReply: return read<fbs::OpenSessionReply>(r, e);
    case fbs::Body::Observation: return read<fbs::Observation>(r, e);
    case fbs::Body::Directive: return read<fbs::Directive>(r, e);
    case fbs::Body::FetchMemory: return read<fbs::FetchMemory>(r, e);
    case fbs::Body::MemoryReply: return read<fbs::MemoryReply>(r, e);
    case fbs::Body::WriteBack: return read<fbs::WriteBack>(r, e);
    case fbs::Body::WriteBackReply: return read<fbs::WriteBackReply>(r, e);
    case fbs::Body::CloseSession: return read<fbs::CloseSession>(r, e);
    case fbs::Body::CloseSessionReply: return read<fbs::CloseSessionReply>(r, e);
    case fbs::Body::AssignLearn: return read<fbs::AssignLearn>(r, e);
    case fbs::Body::LearnProgress: return read<fbs::LearnProgress>(r, e);
    case fbs::Body::LearnResult: return read<fbs::LearnResult>(r, e);
    case fbs::Body::LearnFailed: return read<fbs::LearnFailed>(r, e);
    case fbs::Body::LearnAck: return read<fbs::LearnAck>(r, e);
    case fbs::Body::CancelLearn: return read<fbs::CancelLearn>(r, e);
    case fbs::Body::SubmitTask: return read<fbs::SubmitTask>(r, e);
    case fbs::Body::AssignTask: return read<fbs::AssignTask>(r, e);
    case fbs::Body::TaskEvent: return read<fbs::TaskEvent>(r, e);
    case fbs::Body::CancelTask: return read<fbs::CancelTask>(r, e);
    case fbs::Body::AdminRequest: return read<fbs::AdminRequest>(r, e);
    case fbs::Body::AdminReply: return read<fbs::AdminReply>(r, e);
    case fbs::Body::TraceEvents: return read<fbs::TraceEvents>(r, e);
    case fbs::Body::TraceEventsReply: return read<fbs::TraceEventsReply>(r, e);
    case fbs::Body::NONE: break;
  }
  return corrupt("message body", "one of " + std::to_string(std::variant_size_v<Body>),
                 static_cast<int>(e.body_type()));
}

Result<const fbs::Envelope*> verified_envelope(const std::vector<std::byte>& frame) {
  if (frame.size() > kMaxEnvelopeBytes) {
    return invalid("envelope bytes", "at most " + std::to_string(kMaxEnvelopeBytes), frame.size());
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(frame.data());
  flatbuffers::Verifier verifier(bytes, frame.size(), kMaxDepth, kMaxTables);
  if (!fbs::VerifyEnvelopeBuffer(verifier)) {
    return corrupt("envelope", "a well-formed message",
                   std::to_string(frame.size()) + " malformed bytes");
  }
  const fbs::Envelope* envelope = fbs::GetEnvelope(bytes);
  if (envelope->version() != kProtocolVersion) {
    return mismatch("protocol version", kProtocolVersion, envelope->version());
  }
  return envelope;
}

// A copy: the verifier lets a vector of structs lie at any multiple of four, whatever they need.
fbs::Part part_at(const fbs::Envelope& envelope, std::size_t i) {
  fbs::Part part;
  std::memcpy(&part, envelope.parts()->Data() + i * sizeof part, sizeof part);
  return part;
}

// The frames after the envelope are the parts that it names, byte for byte.
Status check_parts(const fbs::Envelope& envelope, const std::vector<SharedBytes>& frames) {
  const std::size_t named = envelope.parts() == nullptr ? 0 : envelope.parts()->size();
  if (named != frames.size() - 1) return corrupt("message parts", named, frames.size() - 1);
  for (std::size_t i = 0; i < named; ++i) {
    const fbs::Part part = part_at(envelope, i);
    const std::string what = "part " + std::to_string(i);
    const std::vector<std::byte>& bytes = *frames[i + 1];
    if (bytes.size() > kMaxPartBytes) {
      return invalid(what + " bytes", "at most " + std::to_string(kMaxPartBytes), bytes.size());
    }
    if (part.bytes() != bytes.size()) return corrupt(what + " bytes", part.bytes(), bytes.size());
    const Xxh128 expected{part.digest_low(), part.digest_high()};
    const Xxh128 found = xxh128(bytes);
    if (found != expected) return corrupt(what + " XXH3-128", expected.hex(), found.hex());
  }
  return ok();
}

SharedBytes finished(Builder& b) {
  const auto* begin = reinterpret_cast<const std::byte*>(b.GetBufferPointer());
  return std::make_shared<const std::vector<std::byte>>(begin, begin + b.GetSize());
}

}  // namespace

Result<std::vector<SharedBytes>> encode(const Message& message) {
  if (auto valid = validate(message); !valid) {
    return Error{ErrorCode::kInvalidArgument, valid.error().message};
  }
  Builder b(4096);
  const auto body = std::visit([&](const auto& m) { return pack(b, m).Union(); }, message.body);
  std::vector<fbs::Part> parts;
  parts.reserve(message.parts.size());
  for (const SharedBytes& part : message.parts) {
    const Xxh128 digest = xxh128(*part);
    parts.emplace_back(part->size(), digest.low, digest.high);
  }
  const auto part_list = b.CreateVectorOfStructs(parts);
  fbs::FinishEnvelopeBuffer(b, fbs::CreateEnvelope(b, kProtocolVersion, message.request,
                                                   body_type(message.body), body, part_list));
  if (b.GetSize() > kMaxEnvelopeBytes) {
    return invalid("envelope bytes", "at most " + std::to_string(kMaxEnvelopeBytes), b.GetSize());
  }
  std::vector<SharedBytes> frames{finished(b)};
  frames.insert(frames.end(), message.parts.begin(), message.parts.end());
  return frames;
}

Result<Message> decode(const std::vector<SharedBytes>& frames) {
  if (frames.empty()) return corrupt("message frames", "at least 1", 0);
  if (frames.size() > kMaxParts + 1) {
    return invalid("message frames", "at most " + std::to_string(kMaxParts + 1), frames.size());
  }
  MEMSLOT_TRY(const fbs::Envelope* envelope, verified_envelope(*frames[0]));
  MEMSLOT_TRY(check_parts(*envelope, frames));
  if (envelope->body() == nullptr) return corrupt("message body", "a table", "nothing");

  Reader reader;
  MEMSLOT_TRY(auto body, unpack_body(reader, *envelope));
  if (reader.error()) return reader.error()->with_context(body_name(body));
  Message message{envelope->request(), std::move(body), {frames.begin() + 1, frames.end()}};
  MEMSLOT_TRY(validate(message));
  return message;
}

std::string_view body_name(const Body& body) { return fbs::EnumNameBody(body_type(body)); }

bool is_reply(const Body& body) {
  return std::visit(
      []<class T>(const T&) {
        return std::is_same_v<T, HelloReply> || std::is_same_v<T, ErrorReply> ||
               std::is_same_v<T, OpenSessionReply> || std::is_same_v<T, Directive> ||
               std::is_same_v<T, MemoryReply> || std::is_same_v<T, WriteBackReply> ||
               std::is_same_v<T, CloseSessionReply> || std::is_same_v<T, LearnAck> ||
               std::is_same_v<T, TaskEvent> || std::is_same_v<T, AdminReply> ||
               std::is_same_v<T, TraceEventsReply>;
      },
      body);
}

Message in_place_of(const Message& reply, const Error& refusal) {
  const Error error = refusal.with_context("result");
  ErrorReply told{error.code, error.message};
  const auto* event = std::get_if<TaskEvent>(&reply.body);
  if (event == nullptr) return {reply.request, std::move(told), {}};
  return {reply.request,
          TaskEvent{event->task, R"({"type":"failed"})", /*final=*/true, std::move(told)},
          {}};
}

}  // namespace memslot::wire
