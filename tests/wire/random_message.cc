#include "tests/wire/random_message.h"

#include <algorithm>
#include <cmath>

#include "shared/wire/limits.h"  // kMaxParts

namespace memslot::wire {
namespace {

std::uint64_t below(Random& r, std::uint64_t n) { return r() % n; }
bool coin(Random& r) { return below(r, 2) == 0; }
// Across all magnitudes, ends included.
std::uint64_t u64(Random& r) {
  return coin(r) ? r() >> below(r, 64) : (coin(r) ? 0 : ~std::uint64_t{0});
}
std::uint32_t u32(Random& r) { return static_cast<std::uint32_t>(u64(r)); }
std::int32_t positive(Random& r) { return static_cast<std::int32_t>(1 + below(r, 1 << 20)); }
float real(Random& r) {
  return std::ldexp(static_cast<float>(below(r, 2001)) - 1000.0f,
                    static_cast<int>(below(r, 40)) - 30);
}

std::string text(Random& r, std::size_t longest = 300) {
  std::string out(below(r, longest + 1), ' ');
  for (char& c : out) c = static_cast<char>(below(r, 256));
  return out;
}

std::string name(Random& r) {
  constexpr std::string_view kFirst = "abcdefghijklmnopqrstuvwxyz0123456789_";
  constexpr std::string_view kRest = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
  std::string out(1 + below(r, 120), 'a');
  for (char& c : out) c = kRest[below(r, kRest.size())];
  out.front() = kFirst[below(r, kFirst.size())];
  return out;
}

std::string maybe_name(Random& r) { return coin(r) ? name(r) : std::string(); }

template <class Enum>
Enum one_of(Random& r, Enum last) {
  return static_cast<Enum>(1 + below(r, static_cast<std::uint64_t>(last)));
}

Sha256 sha(Random& r) {
  Sha256 out;
  for (auto& byte : out.bytes) byte = static_cast<std::uint8_t>(r());
  return out;
}

// Any reference; `versioned` names a memory and a version.
MemoryRef ref(Random& r, bool versioned) {
  if (versioned) return {name(r), name(r), 1 + below(r, 1000)};
  return {maybe_name(r), maybe_name(r), u64(r)};
}

template <class Fn>
auto list(Random& r, std::size_t longest, Fn one) {
  std::vector<decltype(one())> out(below(r, longest + 1));
  for (auto& element : out) element = one();
  return out;
}

std::vector<SlotInfo> slots(Random& r) {
  return list(r, 5, [&] {
    return SlotInfo{positive(r) - 1, one_of(r, MlpForm::kGeluTanh), positive(r), positive(r)};
  });
}

std::vector<Resident> residents(Random& r) {
  return list(r, 6, [&] { return Resident{u32(r), ref(r, true)}; });
}

MemoryVersion version(Random& r) {
  MemoryVersion v;
  v.ref = ref(r, true);
  v.token = name(r);
  v.parent = maybe_name(r);
  v.signature = {sha(r),
                 positive(r),
                 one_of(r, MemoryKind::kPkm),
                 one_of(r, MlpForm::kGeluTanh),
                 positive(r),
                 positive(r),
                 sha(r)};
  v.dtype = coin(r) ? DType::kF32 : DType::kBF16;
  v.source = maybe_name(r);
  v.origin = one_of(r, VersionOrigin::kImported);
  v.origin_id = maybe_name(r);
  v.created_unix_ms = static_cast<std::int64_t>(below(r, std::uint64_t{1} << 50));
  v.payload_bytes = below(r, kMaxPartBytes);
  v.sha256 = sha(r);
  v.keys = static_cast<std::uint32_t>(below(r, 10000));
  v.stats = {real(r),
             real(r),
             0.5,
             0.75,
             real(r),
             real(r),
             12.5,
             static_cast<std::uint32_t>(below(r, 100)),
             static_cast<std::uint32_t>(below(r, 9999)),
             static_cast<std::uint32_t>(below(r, 99)),
             R"({"rate": 0.01, "name": "é"})"};
  v.branch = coin(r);
  v.position = below(r, 1 << 30);
  return v;
}

// --- bodies --------------------------------------------------------------------------------------

void fill(Random& r, Hello& m) {
  m = {one_of(r, PeerRole::kClient), u64(r), text(r), sha(r), text(r), slots(r), u32(r)};
}
void fill(Random& r, HelloReply& m) { m = {u64(r), text(r), 1 + u32(r) / 2}; }
void fill(Random& r, Heartbeat& m) { m = {u64(r)}; }
void fill(Random& r, ErrorReply& m) { m = {one_of(r, ErrorCode::kInternal), text(r)}; }
void fill(Random& r, OpenSession& m) {
  m = {u64(r),
       u64(r),
       sha(r),
       slots(r),
       list(r, 9, [&] { return name(r); }),
       text(r),
       u64(r),
       coin(r),
       one_of(r, SelectMode::kAsync),
       one_of(r, KvMode::kRecompute),
       text(r)};
}
void fill(Random& r, OpenSessionReply& m) { m = {u64(r), text(r), name(r)}; }
void fill(Random& r, Observation& m) {
  m.session = u64(r);
  m.step = u64(r);
  const std::size_t width = 1 + below(r, 200);
  m.chunks = list(r, 5, [&] {
    ChunkSummary chunk{std::vector<float>(width), 1 + u32(r) / 2};
    for (float& x : chunk.mean) x = real(r);
    return chunk;
  });
  m.whole_window = coin(r);
  m.entropy = real(r);
  m.surprise = real(r);
  if (coin(r)) m.gain = real(r);
  m.tokens = u32(r);
  m.sampled = coin(r);
  m.active = list(r, 4, [&] {
    return ActiveMemory{u32(r), ref(r, coin(r)), one_of(r, ActiveReason::kLate)};
  });
  m.residents = {u64(r), u64(r), residents(r), residents(r)};
  m.steps_since_swap = u32(r);
}
void fill(Random& r, Directive& m) {
  m.session = u64(r);
  m.step = u64(r);
  m.actions = list(r, 6, [&] {
    const auto action = one_of(r, ActionKind::kUse);
    return SlotAction{u32(r), action, ref(r, action == ActionKind::kUse), sha(r), -1};
  });
  // As many of the uses bring their payload as there may be parts.
  std::int32_t part = 0;
  for (SlotAction& a : m.actions) {
    if (a.action == ActionKind::kUse && coin(r) && part < static_cast<int>(kMaxParts))
      a.part = part++;
  }
  m.log_prob = real(r);
  m.candidates = u32(r);
  m.need_residents = coin(r);
}
void fill(Random& r, FetchMemory& m) { m = {u64(r), {name(r), name(r), u64(r)}}; }
void fill(Random& r, MemoryReply& m) { m = {u64(r), version(r)}; }
void fill(Random& r, WriteBack& m) { m = {u64(r), u64(r), name(r), version(r)}; }
void fill(Random& r, WriteBackReply& m) { m = {coin(r), version(r)}; }
void fill(Random& r, CloseSession& m) {
  m.session = u64(r);
  fill(r, m.last);
}
void fill(Random& r, CloseSessionReply& m) { m = {u64(r)}; }
void fill(Random& r, AssignLearn& m) {
  m = {name(r), u64(r), name(r), name(r), text(r, 5000), text(r), ref(r, coin(r)), name(r)};
}
void fill(Random& r, LearnProgress& m) {
  m = {name(r), u64(r), u32(r), u32(r), real(r), real(r), "training"};
}
void fill(Random& r, LearnResult& m) { m = {name(r), u64(r), version(r)}; }
void fill(Random& r, LearnFailed& m) {
  m = {name(r), u64(r), one_of(r, ErrorCode::kInternal), text(r)};
}
void fill(Random& r, LearnAck& m) { m = {name(r), u64(r), coin(r), text(r)}; }
void fill(Random& r, CancelLearn& m) { m = {name(r), u64(r)}; }
void fill(Random& r, SubmitTask& m) { m = {name(r), text(r)}; }
void fill(Random& r, AssignTask& m) { m = {u64(r), name(r), text(r)}; }
void fill(Random& r, TaskEvent& m) {
  m = {u64(r), text(r), coin(r), std::nullopt};
  if (!m.final || coin(r)) return;
  m.error.emplace();
  fill(r, *m.error);
}
void fill(Random& r, CancelTask& m) { m = {u64(r), u64(r)}; }
void fill(Random& r, AdminRequest& m) { m = {name(r), text(r)}; }
void fill(Random& r, AdminReply& m) { m = {text(r)}; }
void fill(Random& r, TraceEvents& m) { m = {u64(r), u64(r)}; }
void fill(Random& r, TraceEventsReply& m) { m = {u64(r), u64(r)}; }

// --- parts ---------------------------------------------------------------------------------------

std::size_t parts_of(Random& r, const Body& body) {
  if (const auto* directive = std::get_if<Directive>(&body)) {
    std::int32_t highest = -1;
    for (const SlotAction& a : directive->actions) highest = std::max(highest, a.part);
    return static_cast<std::size_t>(highest + 1);
  }
  if (std::holds_alternative<LearnResult>(body)) return 2;
  if (std::holds_alternative<MemoryReply>(body) || std::holds_alternative<WriteBack>(body) ||
      std::holds_alternative<TraceEvents>(body)) {
    return 1;
  }
  const bool file =
      std::holds_alternative<AdminRequest>(body) || std::holds_alternative<AdminReply>(body);
  return file ? below(r, 2) : 0;
}

SharedBytes random_bytes(Random& r) {
  std::vector<std::byte> bytes(below(r, 3000));
  for (auto& byte : bytes) byte = static_cast<std::byte>(r());
  return share_bytes(std::move(bytes));
}

template <std::size_t... I>
Body empty_body(std::size_t type, std::index_sequence<I...>) {
  Body body;
  static_cast<void>(((type == I ? (body.emplace<I>(), true) : false) || ...));
  return body;
}

}  // namespace

Message random_message(std::size_t type, Random& random) {
  Message message;
  message.request = u64(random);
  message.body = empty_body(type, std::make_index_sequence<std::variant_size_v<Body>>());
  std::visit([&](auto& m) { fill(random, m); }, message.body);
  const std::size_t parts = parts_of(random, message.body);
  for (std::size_t i = 0; i < parts; ++i) message.parts.push_back(random_bytes(random));
  return message;
}

}  // namespace memslot::wire
