#pragma once
// Messages of tasks and administration: what clients ask for.
//
// Threads: values.
#include <cstdint>
#include <optional>
#include <string>

#include "shared/wire/messages_link.h"

namespace memslot::wire {

// kind: "generate", "score", "tokenize", "attest", "bench" (relayed to a generator), "learn",
// "watch" (answered by the controller). Arguments and events are JSON: docs/formats/tasks.md.
struct SubmitTask {
  std::string kind;
  std::string arguments;
  friend bool operator==(const SubmitTask&, const SubmitTask&) = default;
};
struct AssignTask {
  std::uint64_t task = 0;  // the controller's number
  std::string kind;
  std::string arguments;
  friend bool operator==(const AssignTask&, const AssignTask&) = default;
};
struct TaskEvent {
  std::uint64_t task = 0;  // 0 towards clients, who know it by request id
  std::string event;       // JSON object with "type"
  bool final = false;
  std::optional<ErrorReply> error;  // only with final
  friend bool operator==(const TaskEvent&, const TaskEvent&) = default;
};
struct CancelTask {
  std::uint64_t task = 0;     // towards a generator
  std::uint64_t request = 0;  // from a client: the request id of its SubmitTask
  friend bool operator==(const CancelTask&, const CancelTask&) = default;
};
// What a generator did since the last one: parts[0] is frames of docs/formats/trace.md.
struct TraceEvents {
  std::uint64_t session = 0;
  std::uint64_t sequence = 0;  // of the session, from 1; a repetition is not stored twice
  friend bool operator==(const TraceEvents&, const TraceEvents&) = default;
};
struct TraceEventsReply {
  std::uint64_t session = 0;
  std::uint64_t sequence = 0;
  friend bool operator==(const TraceEventsReply&, const TraceEventsReply&) = default;
};
struct AdminRequest {     // parts[0]: a file's bytes, for bank.import
  std::string verb;       // "bank.ls", "bank.show", ... : docs/formats/tasks.md
  std::string arguments;  // JSON object
  friend bool operator==(const AdminRequest&, const AdminRequest&) = default;
};
struct AdminReply {    // parts[0]: a file's bytes, for bank.export
  std::string result;  // JSON
  friend bool operator==(const AdminReply&, const AdminReply&) = default;
};

}  // namespace memslot::wire
