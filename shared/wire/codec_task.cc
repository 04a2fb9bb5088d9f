#include "shared/wire/codec_parts.h"  // pack, unpack, Reader

// Tasks, traces and administration.
namespace memslot::wire {

Offset<fbs::SubmitTask> pack(Builder& b, const SubmitTask& m) {
  const auto kind = b.CreateString(m.kind);
  const auto arguments = b.CreateString(m.arguments);
  return fbs::CreateSubmitTask(b, kind, arguments);
}

SubmitTask unpack(Reader& r, const fbs::SubmitTask& m) {
  return {r.word(m.kind()), r.text(m.arguments())};
}

Offset<fbs::AssignTask> pack(Builder& b, const AssignTask& m) {
  const auto kind = b.CreateString(m.kind);
  const auto arguments = b.CreateString(m.arguments);
  return fbs::CreateAssignTask(b, m.task, kind, arguments);
}

AssignTask unpack(Reader& r, const fbs::AssignTask& m) {
  return {m.task(), r.word(m.kind()), r.text(m.arguments())};
}

Offset<fbs::TaskEvent> pack(Builder& b, const TaskEvent& m) {
  const auto event = b.CreateString(m.event);
  const auto error = m.error ? pack(b, *m.error) : Offset<fbs::ErrorReply>();
  return fbs::CreateTaskEvent(b, m.task, event, m.final, error);
}

TaskEvent unpack(Reader& r, const fbs::TaskEvent& m) {
  TaskEvent out{m.task(), r.text(m.event()), m.is_final(), std::nullopt};
  if (m.error() != nullptr) out.error = unpack(r, *m.error());
  return out;
}

Offset<fbs::CancelTask> pack(Builder& b, const CancelTask& m) {
  return fbs::CreateCancelTask(b, m.task, m.request);
}

CancelTask unpack(Reader&, const fbs::CancelTask& m) { return {m.task(), m.request()}; }

Offset<fbs::AdminRequest> pack(Builder& b, const AdminRequest& m) {
  const auto verb = b.CreateString(m.verb);
  const auto arguments = b.CreateString(m.arguments);
  return fbs::CreateAdminRequest(b, verb, arguments);
}

AdminRequest unpack(Reader& r, const fbs::AdminRequest& m) {
  return {r.word(m.verb()), r.text(m.arguments())};
}

Offset<fbs::AdminReply> pack(Builder& b, const AdminReply& m) {
  const auto result = b.CreateString(m.result);
  return fbs::CreateAdminReply(b, result);
}

AdminReply unpack(Reader& r, const fbs::AdminReply& m) { return {r.text(m.result())}; }

Offset<fbs::TraceEvents> pack(Builder& b, const TraceEvents& m) {
  return fbs::CreateTraceEvents(b, m.session, m.sequence);
}

TraceEvents unpack(Reader&, const fbs::TraceEvents& m) { return {m.session(), m.sequence()}; }

Offset<fbs::TraceEventsReply> pack(Builder& b, const TraceEventsReply& m) {
  return fbs::CreateTraceEventsReply(b, m.session, m.sequence);
}

TraceEventsReply unpack(Reader&, const fbs::TraceEventsReply& m) {
  return {m.session(), m.sequence()};
}

}  // namespace memslot::wire
