#pragma once
// Messages of sessions: opening, the steps, memories that travel, closing.
//
// Threads: values.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared/wire/messages_link.h"

namespace memslot::wire {

enum class SelectMode : std::uint8_t { kSync = 1, kAsync = 2 };
enum class KvMode : std::uint8_t { kActivated = 1, kRecompute = 2 };

struct OpenSession {
  std::uint64_t session = 0;      // random, chosen by the generator
  std::uint64_t incarnation = 0;  // the generator's
  Sha256 model;
  std::vector<SlotInfo> slots;
  std::vector<std::string> namespaces;  // allow-list; empty sees nothing
  std::string policy;  // make_policy() spec, "learned[:DIGEST]" or "auto"; "": the default
  std::uint64_t seed = 0;
  bool explore = false;
  SelectMode select = SelectMode::kSync;
  KvMode kv = KvMode::kActivated;
  std::string sampling;  // JSON, for the record
  friend bool operator==(const OpenSession&, const OpenSession&) = default;
};
struct OpenSessionReply {
  std::uint64_t session = 0;
  std::string policy;  // what the session has, and is to be opened again with
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

}  // namespace memslot::wire
