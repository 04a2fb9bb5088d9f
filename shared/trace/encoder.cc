#include "shared/trace/encoder.h"

#include <cstring>
#include <utility>

#include "shared/base/digest.h"
#include "trace_generated.h"

namespace memslot::trace {

using Builder = flatbuffers::FlatBufferBuilder;
template <class T>
using Offset = flatbuffers::Offset<T>;

namespace {

static_assert(static_cast<int>(fbs::Writer::Controller) == static_cast<int>(Writer::kController));
static_assert(static_cast<int>(fbs::Origin::Read) == static_cast<int>(Origin::kRead));
static_assert(sizeof(std::uint32_t) + sizeof(std::uint64_t) == kFrameHeaderBytes);

// Left out where empty: an absent string reads as one.
Offset<flatbuffers::String> text(Builder& b, const std::string& value) {
  return value.empty() ? Offset<flatbuffers::String>() : b.CreateString(value);
}

template <class T>
Offset<flatbuffers::Vector<T>> list(Builder& b, const std::vector<T>& values) {
  return values.empty() ? Offset<flatbuffers::Vector<T>>() : b.CreateVector(values);
}

flatbuffers::Optional<float> as_fbs(const std::optional<float>& value) {
  return value ? flatbuffers::Optional<float>(*value) : flatbuffers::nullopt;
}

flatbuffers::Optional<std::uint64_t> as_fbs(const std::optional<std::uint64_t>& value) {
  return value ? flatbuffers::Optional<std::uint64_t>(*value) : flatbuffers::nullopt;
}

template <class T>
void append(std::vector<std::byte>& to, const T* values, std::size_t count) {
  const std::size_t at = to.size();
  to.resize(at + count * sizeof(T));
  std::memcpy(to.data() + at, values, count * sizeof(T));
}

void append_frame(std::vector<std::byte>& to, const Builder& b) {
  const auto* body = reinterpret_cast<const std::byte*>(b.GetBufferPointer());
  const std::size_t bytes = b.GetSize();
  const auto length = static_cast<std::uint32_t>(bytes);
  const std::uint64_t digest = xxh3_64({body, bytes});
  append(to, &length, 1);
  append(to, &digest, 1);
  append(to, body, bytes);
}

}  // namespace

// One pack() for every event; memories get their numbers, and a frame, before they are named.
struct Packing {
  Encoder& encoder;
  Builder& b;

  std::uint32_t number_of(const NamedMemory& memory) { return encoder.number_of(memory); }

  std::pair<fbs::Body, Offset<void>> operator()(const Start& m) {
    std::vector<std::uint32_t> opening;
    for (const NamedMemory& memory : m.opening) opening.push_back(number_of(memory));
    const auto namespaces = b.CreateVectorOfStrings(m.namespaces);
    const auto build = text(b, m.build);
    const auto request = text(b, m.request);
    const auto policy = text(b, m.policy);
    const auto prompt = list(b, m.prompt);
    const auto prompt_text = text(b, m.prompt_text);
    const auto open = list(b, opening);
    return {fbs::Body::Start,
            fbs::CreateStart(b, m.session, m.created_unix_ms, static_cast<fbs::Origin>(m.origin),
                             namespaces, build, request, policy, prompt, prompt_text, open)
                .Union()};
  }
  std::pair<fbs::Body, Offset<void>> operator()(const Step& m) {
    std::vector<fbs::Active> active;
    for (const Active& a : m.active) {
      active.emplace_back(a.slot, number_of(a.memory), static_cast<std::uint8_t>(a.reason));
    }
    const auto slots = b.CreateVectorOfStructs(active);
    const auto tokens = list(b, m.tokens);
    const auto log_probs = list(b, m.log_probs);
    const auto written = text(b, m.text);
    return {fbs::Body::Step,
            fbs::CreateStep(b, m.step, slots, tokens, log_probs, written, m.logits_xxh3, m.entropy,
                            m.surprise, as_fbs(m.gain), m.candidates, as_fbs(m.advised_step),
                            m.select_us, m.swap_us, m.recompute_us, m.compute_us, m.recomputed)
                .Union()};
  }
  std::pair<fbs::Body, Offset<void>> operator()(const Decision& m) {
    std::vector<fbs::Candidate> rows;
    for (const Candidate& c : m.candidates) {
      const int flags = (c.current ? 1 : 0) | (c.resident ? 2 : 0);
      rows.emplace_back(c.age, number_of({c.ref, {}}), c.uses, c.best_key, c.mean_key, c.long_key,
                        c.past_net_gain, c.swap_cost, c.score, static_cast<std::uint8_t>(flags));
    }
    const auto policy = text(b, m.policy);
    const auto query = list(b, m.query);
    const auto candidates = b.CreateVectorOfStructs(rows);
    return {
        fbs::Body::Decision,
        fbs::CreateDecision(b, m.step, m.slot, policy, m.seed, m.explore, m.entropy, m.surprise,
                            m.steps_since_swap, m.chosen, m.log_prob, query, candidates, m.features)
            .Union()};
  }
  std::pair<fbs::Body, Offset<void>> operator()(const WriteBack& m) {
    const auto from = text(b, m.from);
    const auto stored = text(b, m.stored);
    const auto error = text(b, m.error);
    return {fbs::Body::WriteBack,
            fbs::CreateWriteBack(b, m.step, from, stored, m.conflict, error).Union()};
  }
  std::pair<fbs::Body, Offset<void>> operator()(const Fault& m) {
    const auto what = text(b, m.text);
    return {fbs::Body::Fault, fbs::CreateFault(b, m.step, what).Union()};
  }
  std::pair<fbs::Body, Offset<void>> operator()(const Feedback& m) {
    return {fbs::Body::Feedback, fbs::CreateFeedback(b, m.value).Union()};
  }
  std::pair<fbs::Body, Offset<void>> operator()(const End& m) {
    const auto finish = text(b, m.finish);
    const auto error = text(b, m.error);
    return {fbs::Body::End, fbs::CreateEnd(b, finish, error, m.missed, m.load_failures,
                                           m.prefill_seconds, m.decode_seconds)
                                .Union()};
  }
};

std::uint32_t Encoder::number_of(const NamedMemory& memory) {
  if (memory.is_base()) return 0;
  const std::string ref = memory.ref.text();
  const bool known_bytes = !memory.sha256.is_zero();
  const std::string key = known_bytes ? ref + " " + memory.sha256.hex() : ref;
  const auto next = static_cast<std::uint32_t>(known_.size()) + 1;
  const auto [found, made] = known_.try_emplace(key, next);
  if (made) {
    Builder b(256);
    const auto name = b.CreateString(ref);
    const auto digest = known_bytes
                            ? b.CreateVector(memory.sha256.bytes.data(), memory.sha256.bytes.size())
                            : Offset<flatbuffers::Vector<std::uint8_t>>();
    const auto body = fbs::CreateMemory(b, next, name, digest).Union();
    b.Finish(fbs::CreateEvent(b, static_cast<fbs::Writer>(writer_), fbs::Body::Memory, body));
    append_frame(out_, b);
  }
  return found->second;
}

void Encoder::add(const Event& event) {
  Builder b(1024);
  Packing packing{*this, b};
  const auto [type, body] = std::visit(packing, event);
  b.Finish(fbs::CreateEvent(b, static_cast<fbs::Writer>(writer_), type, body));
  append_frame(out_, b);
}

std::vector<std::byte> Encoder::take() { return std::exchange(out_, {}); }

std::vector<std::byte> Encoder::take_and_forget() {
  known_.clear();
  return take();
}

}  // namespace memslot::trace
