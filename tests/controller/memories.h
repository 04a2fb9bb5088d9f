#pragma once
// A bank in memory and small memories with keys, for the controller's tests.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "controller/step/candidate_index.h"
#include "storage/memory_bank.h"
#include "storage/memory_store.h"
#include "tests/support/small_payload.h"

namespace memslot {

inline constexpr int kDim = 8;  // D of the tests' slots
inline constexpr TimePoint kFarDeadline = TimePoint::max();

inline SlotSignature slot_signature(MemoryKind kind = MemoryKind::kLora,
                                    std::string_view model = "a model", int layer = 3) {
  SlotSignature s;
  s.model = sha256(bytes_of(model));
  s.layer = layer;
  s.kind = kind;
  s.d_model = kDim;
  s.d_ff = 16;
  if (kind == MemoryKind::kDelta) s.outer = sha256(bytes_of("outer parameters"));
  return s;
}

inline MemoryPayload small_payload(float value, const SlotSignature& signature = slot_signature()) {
  return testing_support::payload_of(signature, DType::kF32, value);
}

// `rows` keys around `centre`, jittered by `spread`.
inline std::vector<float> keys_around(const std::vector<float>& centre, int rows, float spread,
                                      std::mt19937& rng) {
  std::normal_distribution<float> noise(0.0f, spread);
  std::vector<float> out;
  for (int row = 0; row < rows; ++row) {
    for (const float c : centre) out.push_back(c + noise(rng));
  }
  return out;
}

// A centre of its own for each number: well apart in D dimensions.
inline std::vector<float> centre_of(unsigned number, int dim = kDim) {
  std::mt19937 rng(1000 + number);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> out(static_cast<std::size_t>(dim));
  for (float& x : out) x = normal(rng);
  return out;
}

inline std::string numbered(unsigned number) {
  return std::string("m").append(std::to_string(number));
}

// What a test publishes.
struct MemorySpec {
  std::string id;
  std::string ns = "default";
  std::vector<float> keys{};
  SlotSignature signature = slot_signature();
  float value = 1.0f;
  std::string token{};     // "": made
  std::string expected{};  // "": whatever is the head
  std::string source_text = "some words";
};

class TestBank {
 public:
  explicit TestBank(BankStore* store = nullptr)
      : bank_(store == nullptr ? static_cast<BankStore&>(store_) : *store, clock_) {}

  MemoryVersion publish(const MemorySpec& spec) {
    const MemoryPayload payload = small_payload(spec.value, spec.signature);
    const MemoryKeys keys{kDim, spec.keys};
    MemoryDraft draft;
    draft.meta.ref = {.ns = spec.ns, .id = spec.id, .version = 0};
    draft.meta.token = spec.token.empty() ? new_token(clock_) : spec.token;
    draft.meta.signature = spec.signature;
    draft.meta.dtype = DType::kF32;
    draft.meta.source = "a-source";
    draft.meta.created_unix_ms = ++published_;
    draft.meta.payload_bytes = payload.bytes().size();
    draft.meta.sha256 = sha256(payload.bytes());
    draft.payload = payload.bytes();
    if (!spec.keys.empty()) draft.keys = &keys;
    draft.source_text = spec.source_text;
    draft.expected = spec.expected;
    if (spec.expected.empty()) {
      if (const auto head = bank_.head(draft.meta.ref, kFarDeadline))
        draft.expected = head.value().token;
    }
    const auto done = bank_.publish_memory(draft, kFarDeadline);
    if (!done) {
      ADD_FAILURE() << done.error().message;
      return {};
    }
    return done.value().version;
  }

  MemoryBank& bank() { return bank_; }
  BankStore& store() { return store_; }
  ManualClock& clock() { return clock_; }

 private:
  ManualClock clock_;
  MemoryStore store_{clock_};
  MemoryBank bank_;
  std::int64_t published_ = 0;
};

}  // namespace memslot
