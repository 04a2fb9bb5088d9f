#pragma once
// The memories that the killed writer publishes, known to both sides by (round, number). Large
// enough to lie in blob files, and every few much larger, so that kills fall inside a put.
#include <string>
#include <vector>

#include "storage/memory_bank.h"
#include "tests/support/small_payload.h"

namespace memslot {

struct CrashMemory {
  CrashMemory(int round, int number)
      : payload(make_payload(number)),
        keys{4, std::vector<float>(8, static_cast<float>(number))},
        source(std::string("source ").append(draft_name(round, number))) {
    draft.meta.ref = {"default", std::string("m").append(std::to_string(number % 5)), 0};
    draft.meta.token = draft_name(round, number);
    draft.meta.signature = payload.signature();
    draft.meta.dtype = payload.dtype();
    draft.meta.payload_bytes = payload.bytes().size();
    draft.meta.sha256 = sha256(payload.bytes());
    draft.payload = payload.bytes();
    draft.keys = &keys;
    draft.source_text = source;
  }
  CrashMemory(const CrashMemory&) = delete;
  CrashMemory& operator=(const CrashMemory&) = delete;

  // (append, not +: GCC 12 warns wrongly about "text" + std::string.)
  static std::string draft_name(int round, int number) {
    return std::string("r")
        .append(std::to_string(round))
        .append("-")
        .append(std::to_string(number));
  }
  static MemoryPayload make_payload(int number) {
    SlotSignature s;
    s.model = sha256(bytes_of("a model"));
    s.d_model = 4;
    s.d_ff = number % 7 == 0 ? 80'000 : 330;  // three tensors of d_model * d_ff
    return testing_support::payload_of(s, DType::kF32, static_cast<float>(number % 1000));
  }

  MemoryPayload payload;
  MemoryKeys keys;
  std::string source;
  MemoryDraft draft;
};

}  // namespace memslot
