#pragma once
// Every message between controller, generators and clients, as plain structs. The bytes are made in
// codec.cc from schemas/*.fbs; nothing else sees FlatBuffers.
//
// Who sends what:
//   generator -> controller   Hello, Heartbeat, OpenSession, Observation, FetchMemory, WriteBack,
//                             CloseSession, LearnProgress, LearnResult, LearnFailed, TaskEvent,
//                             TraceEvents
//   controller -> generator   HelloReply, Heartbeat, OpenSessionReply, Directive, MemoryReply,
//                             WriteBackReply, CloseSessionReply, AssignLearn, LearnAck,
//                             CancelLearn, AssignTask, CancelTask, TraceEventsReply,
//                             ErrorReply
//   client -> controller      Hello, Heartbeat, SubmitTask, CancelTask, AdminRequest
//   controller -> client      HelloReply, Heartbeat, TaskEvent, AdminReply, ErrorReply
//
// A request carries a request id that is unique for its sender's incarnation; the reply repeats it.
// A retry repeats the request id and the body. One-way messages (Heartbeat, LearnProgress,
// TaskEvent, CancelTask, CancelLearn) have request id 0, but for TaskEvent, which repeats its
// task's.
//
// Threads: values.
#include <cstdint>
#include <variant>
#include <vector>

#include "shared/base/bytes.h"
#include "shared/wire/messages_learn.h"
#include "shared/wire/messages_link.h"
#include "shared/wire/messages_step.h"
#include "shared/wire/messages_task.h"

namespace memslot::wire {

using Body =
    std::variant<Hello, HelloReply, Heartbeat, ErrorReply, OpenSession, OpenSessionReply,
                 Observation, Directive, FetchMemory, MemoryReply, WriteBack, WriteBackReply,
                 CloseSession, CloseSessionReply, AssignLearn, LearnProgress, LearnResult,
                 LearnFailed, LearnAck, CancelLearn, SubmitTask, AssignTask, TaskEvent, CancelTask,
                 AdminRequest, AdminReply, TraceEvents, TraceEventsReply>;

struct Message {
  std::uint64_t request = 0;
  Body body;
  std::vector<SharedBytes> parts;
};

}  // namespace memslot::wire
