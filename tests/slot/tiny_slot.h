#pragma once
// A tiny model of the golden fixtures in f32 with one slot, and what loads memories into it.
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/slot/any_memory.h"
#include "generator/slot/slot.h"
#include "shared/base/digest.h"
#include "tests/support/fixture.h"

namespace memslot::testing_support {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
inline void must(Status status) {
  if (!status) throw std::runtime_error(status.error().message);
}

class TinySlot {
 public:
  // `family`: "llama" or "gpt2". The slot is layer 2.
  explicit TinySlot(const std::string& family = "llama")
      : backend(must(open_backend(BackendOptions{"cpu", 2}))),
        file(must(ModelFile::open(fixtures_matching(family + "_tiny*_hf").at(0)))) {
    GptOptions options;
    options.weights = DType::kF32;
    options.slot_layers = {2};
    gpt = must(Gpt::load(file, *backend, std::move(options)));
    model_digest.bytes[0] = 1;
  }

  SlotSignature signature(MemoryKind kind, const Sha256& outer = {}) const {
    return expected_signature(*gpt, model_digest, 0, kind, outer);
  }
  Result<std::shared_ptr<const LoadedMemory>> load(const MemoryPayload& payload,
                                                   const MemoryPayload* outer = nullptr) const {
    const Sha256 named = outer == nullptr ? Sha256{} : sha256(outer->bytes());
    return LoadedMemory::load(payload, MemoryRef{"default", "m", 1}, sha256(payload.bytes()),
                              signature(payload.kind(), named), outer, *gpt);
  }

  // Logits of the last row after reading `tokens`, `piece` at a time; null slots: base everywhere.
  std::vector<float> logits(std::span<const std::int32_t> tokens, SessionSlot* slot,
                            std::size_t piece = 1000) const {
    KvCache kv = must(gpt->make_kv(std::ssize(tokens)));
    std::vector<float> hidden(static_cast<std::size_t>(gpt->config().d_model));
    const SlotForward forward = [&](const SlotCall& call) { slot->forward(call); };
    const std::int64_t d = std::ssize(hidden), v = gpt->config().vocab;
    for (std::size_t at = 0; at < tokens.size(); at += piece) {
      Sequence sequence{tokens.subspan(at, std::min(piece, tokens.size() - at)),
                        &kv,
                        slot == nullptr ? nullptr : &forward,
                        {""}};
      must(gpt->forward({&sequence, 1}, {hidden.data(), DType::kF32, 1, d, d}, /*last_only=*/true));
    }
    std::vector<float> out(static_cast<std::size_t>(v));
    gpt->logits({hidden.data(), DType::kF32, 1, d, d}, {out.data(), DType::kF32, 1, v, v});
    return out;
  }

  std::unique_ptr<Backend> backend;
  ModelFile file;
  std::unique_ptr<Gpt> gpt;
  Sha256 model_digest;
};

}  // namespace memslot::testing_support
