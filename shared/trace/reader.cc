#include "shared/trace/reader.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "shared/base/digest.h"
#include "trace_generated.h"

namespace memslot::trace {
namespace {

constexpr flatbuffers::uoffset_t kMaxDepth = 8;
constexpr flatbuffers::uoffset_t kMaxTables = 64;
constexpr std::size_t kMaxNames = 4096;

std::string text(const flatbuffers::String* s) { return s == nullptr ? std::string() : s->str(); }

template <class T>
std::vector<T> list(const flatbuffers::Vector<T>* v) {
  std::vector<T> out;
  if (v == nullptr) return out;
  out.resize(v->size());
  for (flatbuffers::uoffset_t i = 0; i < v->size(); ++i) out[i] = v->Get(i);
  return out;
}

template <class T>
std::optional<T> as_std(flatbuffers::Optional<T> value) {
  return value.has_value() ? std::optional<T>(*value) : std::nullopt;
}

// A copy: the verifier lets a vector of structs lie at any multiple of four, whatever they need.
template <class T>
std::vector<T> rows(const flatbuffers::Vector<const T*>* v) {
  std::vector<T> out;
  if (v == nullptr) return out;
  out.resize(v->size());
  if (!out.empty()) std::memcpy(out.data(), v->Data(), out.size() * sizeof(T));
  return out;
}

}  // namespace

struct Unpacking {
  FrameReader& reader;
  Writer writer;
  std::optional<Error> error{};

  void fail(const std::string& what, const std::string& expected, std::uint64_t found) {
    if (!error) error = corrupt(what, expected, found);
  }

  NamedMemory memory(std::uint32_t index) {
    if (index == 0) return {MemoryRef{"", "", 0}, {}};
    const auto found = reader.known_.find({writer, index});
    if (found != reader.known_.end()) return found->second;
    fail("trace memory", "one that an earlier frame spells", index);
    return {};
  }

  void learn(const fbs::Memory& m) {
    auto ref = MemoryRef::parse(text(m.ref()));
    if (!ref) {
      error = ref.error();
      return;
    }
    NamedMemory out{std::move(ref).value(), {}};
    if (const auto* digest = m.sha256(); digest != nullptr && digest->size() > 0) {
      if (digest->size() != out.sha256.bytes.size()) {
        return fail("trace memory's SHA-256 bytes", "32", digest->size());
      }
      std::copy(digest->begin(), digest->end(), out.sha256.bytes.begin());
    }
    reader.known_[{writer, m.index()}] = std::move(out);
  }

  Start start(const fbs::Start& m) {
    Start out{.session = m.session(),
              .created_unix_ms = m.created_unix_ms(),
              .origin = static_cast<Origin>(m.origin()),
              .namespaces = {},
              .build = text(m.build()),
              .request = text(m.request()),
              .policy = text(m.policy()),
              .prompt = list(m.prompt()),
              .prompt_text = text(m.prompt_text()),
              .opening = {}};
    if (out.origin != Origin::kWritten && out.origin != Origin::kRead) {
      fail("trace origin", "1 or 2", static_cast<std::uint64_t>(m.origin()));
    }
    if (m.namespaces() != nullptr && m.namespaces()->size() <= kMaxNames) {
      for (const auto* ns : *m.namespaces()) out.namespaces.push_back(text(ns));
    }
    if (out.namespaces.empty()) fail("trace namespaces", "1 to 4096", 0);
    for (const std::uint32_t index : list(m.opening())) out.opening.push_back(memory(index));
    return out;
  }

  Step step(const fbs::Step& m) {
    Step out{.step = m.step(),
             .active = {},
             .tokens = list(m.tokens()),
             .log_probs = list(m.log_probs()),
             .text = text(m.text()),
             .logits_xxh3 = m.logits_xxh3(),
             .entropy = m.entropy(),
             .surprise = m.surprise(),
             .gain = as_std(m.gain()),
             .candidates = m.candidates(),
             .advised_step = as_std(m.advised_step()),
             .select_us = m.select_us(),
             .swap_us = m.swap_us(),
             .recompute_us = m.recompute_us(),
             .compute_us = m.compute_us(),
             .recomputed = m.recomputed()};
    for (const fbs::Active& a : rows(m.active())) {
      if (a.reason() < 1 || a.reason() > static_cast<std::uint8_t>(wire::ActiveReason::kLate)) {
        fail("trace reason", "1 to 6", a.reason());
      }
      out.active.push_back(
          {a.slot(), memory(a.memory()), static_cast<wire::ActiveReason>(a.reason())});
    }
    if (out.log_probs.size() != out.tokens.size()) {
      fail("trace step's log-probabilities", std::to_string(out.tokens.size()),
           out.log_probs.size());
    }
    return out;
  }

  Decision decision(const fbs::Decision& m) {
    Decision out{.step = m.step(),
                 .slot = m.slot(),
                 .policy = text(m.policy()),
                 .seed = m.seed(),
                 .explore = m.explore(),
                 .entropy = m.entropy(),
                 .surprise = m.surprise(),
                 .steps_since_swap = m.steps_since_swap(),
                 .chosen = m.chosen(),
                 .log_prob = m.log_prob(),
                 .features = m.features(),
                 .query = list(m.query()),
                 .candidates = {}};
    for (const fbs::Candidate& c : rows(m.candidates())) {
      out.candidates.push_back({.ref = memory(c.memory()).ref,
                                .current = (c.flags() & 1) != 0,
                                .resident = (c.flags() & 2) != 0,
                                .best_key = c.best_key(),
                                .mean_key = c.mean_key(),
                                .long_key = c.long_key(),
                                .past_net_gain = c.past_net_gain(),
                                .uses = c.uses(),
                                .age = c.age(),
                                .swap_cost = c.swap_cost(),
                                .score = c.score()});
    }
    if (out.chosen >= out.candidates.size()) {
      fail("trace decision's choice", "under " + std::to_string(out.candidates.size()), out.chosen);
    }
    return out;
  }

  // Nothing for a frame that only spells a memory.
  std::optional<Event> event(const fbs::Event& e) {
    switch (e.body_type()) {
      case fbs::Body::Memory: learn(*e.body_as_Memory()); return std::nullopt;
      case fbs::Body::Start: return start(*e.body_as_Start());
      case fbs::Body::Step: return step(*e.body_as_Step());
      case fbs::Body::Decision: return decision(*e.body_as_Decision());
      case fbs::Body::WriteBack: {
        const fbs::WriteBack& m = *e.body_as_WriteBack();
        return WriteBack{m.step(), text(m.from()), text(m.stored()), m.conflict(), text(m.error())};
      }
      case fbs::Body::Fault: {
        const fbs::Fault& m = *e.body_as_Fault();
        return Fault{m.step(), text(m.text())};
      }
      case fbs::Body::Feedback: return Feedback{e.body_as_Feedback()->value()};
      case fbs::Body::End: {
        const fbs::End& m = *e.body_as_End();
        return End{text(m.finish()),  text(m.error()),     m.missed(),
                   m.load_failures(), m.prefill_seconds(), m.decode_seconds()};
      }
      case fbs::Body::NONE: break;
    }
    fail("trace event", "one of " + std::to_string(static_cast<int>(fbs::Body::MAX)),
         static_cast<std::uint64_t>(e.body_type()));
    return std::nullopt;
  }
};

namespace {

// The body of the frame at `at`, which moves behind it.
Result<std::span<const std::byte>> frame_at(std::span<const std::byte> bytes, std::size_t& at) {
  const std::string where = "trace frame at byte " + std::to_string(at);
  const std::size_t left = bytes.size() - at;
  if (left < kFrameHeaderBytes) return corrupt(where, "12 bytes of a header", left);
  std::uint32_t length = 0;
  std::uint64_t digest = 0;
  std::memcpy(&length, bytes.data() + at, sizeof length);
  std::memcpy(&digest, bytes.data() + at + sizeof length, sizeof digest);
  if (length == 0 || length > kMaxFrameBytes || length > left - kFrameHeaderBytes) {
    return corrupt(where, std::to_string(length) + " bytes", left - kFrameHeaderBytes);
  }
  const auto body = bytes.subspan(at + kFrameHeaderBytes, length);
  if (xxh3_64(body) != digest) return corrupt(where, "bytes of its digest", "others");
  at += kFrameHeaderBytes + length;
  return body;
}

}  // namespace

Result<std::optional<Event>> FrameReader::next(std::span<const std::byte> bytes, std::size_t& at) {
  while (at < bytes.size()) {
    const std::size_t began = at;
    std::size_t end = at;
    MEMSLOT_TRY(const auto body, frame_at(bytes, end));
    const auto* data = reinterpret_cast<const std::uint8_t*>(body.data());
    flatbuffers::Verifier verifier(data, body.size(), kMaxDepth, kMaxTables);
    const std::string where = "trace frame at byte " + std::to_string(began);
    if (!verifier.VerifyBuffer<fbs::Event>(nullptr)) {
      return corrupt(where, "a well-formed event", std::to_string(body.size()) + " other bytes");
    }
    const auto* event = flatbuffers::GetRoot<fbs::Event>(data);
    if (event->writer() == fbs::Writer::None || event->body() == nullptr) {
      return corrupt(where, "an event", "an empty one");
    }
    Unpacking unpacking{*this, static_cast<Writer>(event->writer())};
    auto out = unpacking.event(*event);
    if (unpacking.error) return unpacking.error->with_context(where);
    at = end;
    writer_ = unpacking.writer;
    if (out) return out;
  }
  return std::optional<Event>();
}

const Decision* Trace::decision(std::uint64_t step, std::uint32_t slot) const {
  const auto found = std::ranges::find_if(
      decisions, [&](const Decision& d) { return d.step == step && d.slot == slot; });
  return found == decisions.end() ? nullptr : &*found;
}

namespace {

// What was sent twice, over a link that broke, counts once.
struct Gather {
  Trace& out;
  bool started = false;
  void operator()(Start m) {
    if (!started) out.start = std::move(m);
    started = true;
  }
  void operator()(Step m) { out.steps.push_back(std::move(m)); }
  void operator()(Decision m) { out.decisions.push_back(std::move(m)); }
  void operator()(WriteBack m) { out.write_backs.push_back(std::move(m)); }
  void operator()(Fault m) { out.faults.push_back(std::move(m)); }
  void operator()(Feedback m) { out.feedback.push_back(m); }
  void operator()(End m) { out.end = std::move(m); }
};

template <class T, class Key>
void each_once(std::vector<T>& list, Key key) {
  std::ranges::stable_sort(list, {}, key);
  const auto rest = std::ranges::unique(list, {}, key);
  list.erase(rest.begin(), rest.end());
}

}  // namespace

Result<Trace> read_trace(std::span<const std::byte> file) {
  if (file.size() < kMagic.size() || std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    return corrupt("trace", "a file that begins with " + std::string(kMagic), "another");
  }
  Trace out;
  Gather gather{out};
  FrameReader reader;
  std::size_t at = kMagic.size();
  for (;;) {
    auto event = reader.next(file, at);
    if (!event) {
      out.damage = event.error();
      break;
    }
    if (!event.value()) break;
    std::visit([&](auto&& e) { gather(std::move(e)); }, std::move(*event.value()));
  }
  if (!gather.started) {
    return out.damage ? *out.damage : corrupt("trace", "a Start", "none").with_context("trace");
  }
  out.good_bytes = at;
  each_once(out.steps, [](const Step& s) { return s.step; });
  each_once(out.decisions, [](const Decision& d) { return std::pair(d.step, d.slot); });
  return out;
}

std::string trace_id(std::uint64_t session) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; session >>= 4) out[i] = kDigits[session & 15];
  return out;
}

Result<std::uint64_t> parse_trace_id(std::string_view id) {
  std::uint64_t out = 0;
  const auto [end, failed] = std::from_chars(id.data(), id.data() + id.size(), out, 16);
  const bool whole = failed == std::errc() && end == id.data() + id.size() && id.size() == 16;
  if (!whole || trace_id(out) != id) {
    return invalid("trace id", "16 lower-case hex digits", std::string(id.substr(0, 64)));
  }
  return out;
}

}  // namespace memslot::trace
