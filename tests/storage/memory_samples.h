#pragma once
// Small valid memories for tests of the bank.
#include <algorithm>
#include <string>
#include <vector>

#include "storage/memory_bank.h"
#include "storage/memory_store.h"
#include "tests/storage/store_cases.h"
#include "tests/support/small_payload.h"

namespace memslot {

inline SlotSignature sample_signature() {
  SlotSignature s;
  s.model = sha256(bytes_of("a model"));
  s.layer = 22;
  s.kind = MemoryKind::kLora;
  s.d_model = 4;
  s.d_ff = 8;
  return s;
}

inline MemoryPayload sample_payload(float value,
                                    const SlotSignature& signature = sample_signature()) {
  return testing_support::payload_of(signature, DType::kBF16, value);
}

// A draft that owns what it refers to.
struct Sample {
  explicit Sample(std::string token, float value = 1.0F, const std::string& id = "skerrow")
      : payload(sample_payload(value)),
        keys{4, std::vector<float>(12, value)},
        source(std::string("The light at Skerrow was lit in ")
                   .append(value > 0 ? std::to_string(static_cast<int>(value)) : "0")) {
    draft.meta.ref = {"default", id, 0};
    draft.meta.token = std::move(token);
    draft.meta.signature = payload.signature();
    draft.meta.dtype = payload.dtype();
    draft.meta.source = "skerrow_light";
    draft.meta.origin_id = "job-1";
    draft.meta.stats.nll_after = 0.25;
    draft.meta.stats.config = R"({"rate":0.01})";
    describe();
    draft.keys = &keys;
    draft.source_text = source;
  }
  Sample(const Sample&) = delete;
  Sample& operator=(const Sample&) = delete;
  void describe() {
    draft.payload = payload.bytes();
    draft.meta.payload_bytes = payload.bytes().size();
    draft.meta.sha256 = sha256(payload.bytes());
  }
  Sample& expecting(std::string head) {
    draft.expected = std::move(head);
    return *this;
  }
  MemoryPayload payload;
  MemoryKeys keys;
  std::string source;
  MemoryDraft draft;
};

inline const MemoryRef kSkerrow{"default", "skerrow", 0};

inline std::vector<std::string> tokens_of(const std::vector<MemoryVersion>& versions) {
  std::vector<std::string> tokens;
  for (const auto& version : versions) tokens.push_back(version.token);
  return tokens;
}

inline std::uint64_t payload_count(BankStore& store) {
  return store.list_payloads("", 1000, kNoDeadline).value().entries.size();
}

}  // namespace memslot
