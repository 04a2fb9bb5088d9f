#pragma once
// Every message between controller, generators and clients, as plain structs. The bytes are made in
// codec.cc from schemas/*.fbs; nothing else sees FlatBuffers.
//
// Who sends what:
//   generator -> controller   Hello, Heartbeat, OpenSession, Observation, FetchMemory, WriteBack,
//                             CloseSession, LearnProgress, LearnResult, LearnFailed, TaskEvent
//   controller -> generator   HelloReply, Heartbeat, OpenSessionReply, Directive, MemoryReply,
//                             WriteBackReply, CloseSessionReply, AssignLearn, LearnAck,
//                             CancelLearn, AssignTask, CancelTask, ErrorReply
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
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "shared/base/bytes.h"
#include "shared/base/error.h"
#include "shared/memory/record.h"

namespace memslot::wire {

inline constexpr std::uint16_t kProtocolVersion = 2;
inline constexpr std::size_t kMaxEnvelopeBytes = std::size_t{4} << 20;
inline constexpr std::size_t kMaxPartBytes = std::size_t{64} << 20;
inline constexpr std::size_t kMaxParts = 4;
// Entries of the lists inside one body; validate.h.
inline constexpr std::size_t kMaxSlots = 64;
inline constexpr std::size_t kMaxNamespaces = 1024;
inline constexpr std::size_t kMaxResidents = 16384;                   // added, removed: each
inline constexpr std::size_t kMaxHidden = 65536;                      // D
inline constexpr std::size_t kMaxChunks = 128;                        // of an observation
inline constexpr std::size_t kMaxChunkValues = std::size_t{1} << 19;  // in all of them: 2 MiB
inline constexpr std::size_t kMaxWordBytes = 256;  // names, jobs, tokens, kinds, verbs, phases

enum class PeerRole : std::uint8_t { kGenerator = 1, kClient = 2 };
enum class SelectMode : std::uint8_t { kSync = 1, kAsync = 2 };
enum class KvMode : std::uint8_t { kActivated = 1, kRecompute = 2 };

// A place in the model that a generator offers.
struct SlotInfo {
  std::int32_t layer = 0;
  MlpForm form = MlpForm::kSwiGlu;
  std::int32_t d_model = 0;
  std::int32_t d_ff = 0;
  friend bool operator==(const SlotInfo&, const SlotInfo&) = default;
};

struct Hello {
  PeerRole role = PeerRole::kClient;
  std::uint64_t incarnation = 0;  // random at process start
  std::string build;              // version and commit
  Sha256 model;                   // generators only, as the next three
  std::string model_name;
  std::vector<SlotInfo> slots;
  std::uint32_t learn_workers = 0;  // learn jobs that it takes at once
  friend bool operator==(const Hello&, const Hello&) = default;
};
struct HelloReply {
  std::uint64_t incarnation = 0;
  std::string build;
  std::uint32_t heartbeat_ms = 0;  // a peer that is silent for four of them is lost
  friend bool operator==(const HelloReply&, const HelloReply&) = default;
};
struct Heartbeat {
  std::uint64_t incarnation = 0;
  friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};
struct ErrorReply {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  friend bool operator==(const ErrorReply&, const ErrorReply&) = default;
};

// --- sessions and steps --------------------------------------------------------------------------

struct OpenSession {
  std::uint64_t session = 0;      // random, chosen by the generator
  std::uint64_t incarnation = 0;  // the generator's
  Sha256 model;
  std::vector<SlotInfo> slots;
  std::vector<std::string> namespaces;  // allow-list; empty sees nothing
  std::string policy;                   // make_policy() spec; "" = the controller's default
  std::uint64_t seed = 0;
  bool explore = false;
  SelectMode select = SelectMode::kSync;
  KvMode kv = KvMode::kActivated;
  std::string sampling;  // JSON, for the record
  friend bool operator==(const OpenSession&, const OpenSession&) = default;
};
struct OpenSessionReply {
  std::uint64_t session = 0;
  std::string policy;
  std::string policy_digest;
  friend bool operator==(const OpenSessionReply&, const OpenSessionReply&) = default;
};

enum class ActiveReason : std::uint8_t {
  kOpening = 1,  // base at the start
  kDirective = 2,
  kMissedDeadline = 3,  // kept because no directive came in time
  kPinned = 4,          // the user named it
  kLoadFailed = 5,      // the advised memory did not load; the old one stayed
  kLate = 6,            // async: an older directive applied at this step
};
struct ActiveMemory {
  std::uint32_t slot = 0;  // index into the session's slots
  MemoryRef ref;           // id empty: base
  ActiveReason reason = ActiveReason::kOpening;
  friend bool operator==(const ActiveMemory&, const ActiveMemory&) = default;
};

struct Resident {
  std::uint32_t slot = 0;
  MemoryRef ref;  // with its version
  friend bool operator==(const Resident&, const Resident&) = default;
  friend auto operator<=>(const Resident&, const Resident&) = default;
};
// The generator's resident set: `epoch` after applying the delta to `base_epoch`; base_epoch 0
// means that `added` is the whole set.
struct ResidentDelta {
  std::uint64_t epoch = 0;
  std::uint64_t base_epoch = 0;
  std::vector<Resident> added;
  std::vector<Resident> removed;
  friend bool operator==(const ResidentDelta&, const ResidentDelta&) = default;
};

// Consecutive tokens, summarised: the mean of their slot inputs at the lowest slot, which no memory
// changes.
struct ChunkSummary {
  std::vector<float> mean;   // (D)
  std::uint32_t tokens = 0;  // at least 1
  friend bool operator==(const ChunkSummary&, const ChunkSummary&) = default;
};
inline constexpr std::uint32_t kChunkTokens = 16;    // of a chunk, at most
inline constexpr std::uint32_t kWindowTokens = 128;  // newest text that a generator can tell again

// All that a directive depends on but for the opening and the bank: a controller that has just
// started answers an observation with the whole window as the one before it would have.
struct Observation {
  std::uint64_t session = 0;
  std::uint64_t step = 0;            // 0: the prompt
  std::vector<ChunkSummary> chunks;  // oldest first, of one D: the text since the last observation
  bool whole_window = false;         // chunks are the newest kWindowTokens: forget earlier ones
  float entropy = 0;                 // mean next-token entropy, nats
  float surprise = 0;                // mean NLL of the step's tokens, nats
  std::optional<float> gain;         // of the previous step, nats per token; never for sampled text
  std::uint32_t tokens = 0;          // read or written in the previous step
  bool sampled = false;              // the generator sampled them
  std::vector<ActiveMemory> active;
  ResidentDelta residents;
  std::uint32_t steps_since_swap = 0;  // run with what is active; the prompt counts as one
  friend bool operator==(const Observation&, const Observation&) = default;
};

enum class ActionKind : std::uint8_t { kKeep = 1, kBase = 2, kUse = 3 };
struct SlotAction {
  std::uint32_t slot = 0;
  ActionKind action = ActionKind::kKeep;
  MemoryRef ref;           // for kUse, with its version
  Sha256 sha256;           // of the payload, for kUse
  std::int32_t part = -1;  // index of the payload among the message's parts; -1: resident
  friend bool operator==(const SlotAction&, const SlotAction&) = default;
};
struct Directive {
  std::uint64_t session = 0;
  std::uint64_t step = 0;
  std::vector<SlotAction> actions;
  float log_prob = 0;
  std::uint32_t candidates = 0;  // how many were considered
  bool need_residents = false;   // the controller lost the resident set: send it whole
  friend bool operator==(const Directive&, const Directive&) = default;
};

// A memory that the generator lacks: pinned by the user, or gone before the directive came.
struct FetchMemory {
  std::uint64_t session = 0;
  MemoryRef ref;
  friend bool operator==(const FetchMemory&, const FetchMemory&) = default;
};
struct MemoryReply {  // parts[0] is the payload
  std::uint64_t session = 0;
  MemoryVersion version;
  friend bool operator==(const MemoryReply&, const MemoryReply&) = default;
};

struct WriteBack {  // parts[0] is the payload
  std::uint64_t session = 0;
  std::uint64_t step = 0;
  std::string expected;   // token of the head that the state was made from
  MemoryVersion version;  // token: the retry nonce, chosen by the generator
  friend bool operator==(const WriteBack&, const WriteBack&) = default;
};
struct WriteBackReply {
  bool conflict = false;  // kept as a branch
  MemoryVersion version;  // as stored
  friend bool operator==(const WriteBackReply&, const WriteBackReply&) = default;
};

struct CloseSession {
  std::uint64_t session = 0;
  Observation last;  // the outcome of the last step
  friend bool operator==(const CloseSession&, const CloseSession&) = default;
};
struct CloseSessionReply {
  std::uint64_t session = 0;
  friend bool operator==(const CloseSessionReply&, const CloseSessionReply&) = default;
};

// --- learning ------------------------------------------------------------------------------------

struct AssignLearn {
  std::string job;
  std::uint64_t lease = 0;
  std::string ns;
  std::string source;
  std::string text;
  std::string config;    // JSON, learn/config.h
  MemoryRef target;      // the memory to make or to continue
  std::string expected;  // token of the head to replace, "" for a new memory
  friend bool operator==(const AssignLearn&, const AssignLearn&) = default;
};
struct LearnProgress {
  std::string job;
  std::uint64_t lease = 0;
  std::uint32_t step = 0;
  std::uint32_t steps = 0;  // the limit
  float loss = 0;           // nats per token
  float recall = 0;
  std::string phase;  // "queued", "reading", "training", "measuring", "storing"
  friend bool operator==(const LearnProgress&, const LearnProgress&) = default;
};
struct LearnResult {  // parts[0] payload, parts[1] keys (f32, rows x d_model)
  std::string job;
  std::uint64_t lease = 0;
  MemoryVersion version;  // token: "<job>:<lease>"
  friend bool operator==(const LearnResult&, const LearnResult&) = default;
};
struct LearnFailed {
  std::string job;
  std::uint64_t lease = 0;
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  friend bool operator==(const LearnFailed&, const LearnFailed&) = default;
};
struct LearnAck {  // answers LearnResult and LearnFailed
  std::string job;
  std::uint64_t lease = 0;
  bool accepted = false;  // false: the lease was fenced off; drop the result
  std::string message;
  friend bool operator==(const LearnAck&, const LearnAck&) = default;
};
struct CancelLearn {
  std::string job;
  std::uint64_t lease = 0;
  friend bool operator==(const CancelLearn&, const CancelLearn&) = default;
};

// --- tasks and administration --------------------------------------------------------------------

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
struct AdminRequest {     // parts[0]: a file's bytes, for bank.import
  std::string verb;       // "bank.ls", "bank.show", ... : docs/formats/tasks.md
  std::string arguments;  // JSON object
  friend bool operator==(const AdminRequest&, const AdminRequest&) = default;
};
struct AdminReply {    // parts[0]: a file's bytes, for bank.export
  std::string result;  // JSON
  friend bool operator==(const AdminReply&, const AdminReply&) = default;
};

using Body = std::variant<Hello, HelloReply, Heartbeat, ErrorReply, OpenSession, OpenSessionReply,
                          Observation, Directive, FetchMemory, MemoryReply, WriteBack,
                          WriteBackReply, CloseSession, CloseSessionReply, AssignLearn,
                          LearnProgress, LearnResult, LearnFailed, LearnAck, CancelLearn,
                          SubmitTask, AssignTask, TaskEvent, CancelTask, AdminRequest, AdminReply>;

struct Message {
  std::uint64_t request = 0;
  Body body;
  std::vector<SharedBytes> parts;
};

}  // namespace memslot::wire
