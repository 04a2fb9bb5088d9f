#include <string>
#include <utility>

#include "generator/slot/any_memory.h"
#include "generator/slot/slot.h"
#include "shared/base/digest.h"

namespace memslot {

struct LoadedMemory::Impl {
  MemoryRef ref;
  Sha256 sha256;
  MemoryKind kind = MemoryKind::kMlp;
  AnyMemory any;
};

namespace {

Status verify(const MemoryPayload& payload, const Sha256& digest, const SlotSignature& slot) {
  const Sha256 found = sha256(payload.bytes());
  if (found != digest) return corrupt("payload digest", digest.hex(), found.hex());
  MEMSLOT_TRY(check_signature(slot, payload.signature()));
  return payload.check_finite();
}

}  // namespace

LoadedMemory::LoadedMemory(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LoadedMemory::~LoadedMemory() = default;

Result<std::shared_ptr<const LoadedMemory>> LoadedMemory::load(
    const MemoryPayload& payload, const MemoryRef& ref, const Sha256& digest,
    const SlotSignature& slot_signature, const MemoryPayload* outer, const Gpt& gpt) {
  auto checked = verify(payload, digest, slot_signature);
  if (!checked) return checked.error().with_context("memory " + ref.text());
  if (outer != nullptr) {
    MEMSLOT_TRY(outer->check_finite());
  }
  auto any = load_any(payload, outer, gpt.backend(), gpt.options().weights);
  if (!any) return any.error().with_context("memory " + ref.text());
  auto impl = std::make_unique<Impl>(Impl{ref, digest, payload.kind(), std::move(any).value()});
  return std::shared_ptr<const LoadedMemory>(new LoadedMemory(std::move(impl)));
}

const MemoryRef& LoadedMemory::ref() const { return impl_->ref; }
const Sha256& LoadedMemory::sha256() const { return impl_->sha256; }
MemoryKind LoadedMemory::kind() const { return impl_->kind; }
const AnyMemory& LoadedMemory::any() const { return impl_->any; }
std::size_t LoadedMemory::bytes() const {
  return std::visit([](const auto& memory) { return memory.bytes(); }, impl_->any.kind);
}

SlotSignature expected_signature(const Gpt& gpt, const Sha256& model_digest, std::size_t slot,
                                 MemoryKind kind, const Sha256& outer) {
  const ModelConfig& config = gpt.config();
  SlotSignature s;
  s.model = model_digest;
  s.layer = gpt.options().slot_layers.at(slot);
  s.kind = kind;
  s.form = config.mlp_form;
  s.d_model = config.d_model;
  s.d_ff = config.d_ff;
  s.outer = outer;
  return s;
}

}  // namespace memslot
