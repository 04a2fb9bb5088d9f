#include <algorithm>
#include <string>
#include <utility>

#include "generator/slot/any_memory.h"
#include "generator/slot/slot.h"
#include "shared/base/digest.h"

namespace memslot {

struct SessionSlot::Impl {
  Impl(Gpt& model, std::size_t index) : gpt(model), slot(index), scratch(model.backend()) {}

  const MlpWeights& base() const { return gpt.layer(gpt.options().slot_layers.at(slot)).mlp; }

  Gpt& gpt;
  std::size_t slot;
  SlotScratch scratch;
  std::shared_ptr<const LoadedMemory> active;
  AnyState state;
  Sha256 started_from;          // the payload whose state this session began with
  std::int64_t rows_since = 0;  // rows read since then
};

SessionSlot::SessionSlot(Gpt& gpt, std::size_t slot) : impl_(std::make_unique<Impl>(gpt, slot)) {
  MEMSLOT_CHECK(slot < gpt.options().slot_layers.size());
}
SessionSlot::~SessionSlot() = default;
SessionSlot::SessionSlot(SessionSlot&&) noexcept = default;
SessionSlot& SessionSlot::operator=(SessionSlot&&) noexcept = default;

void SessionSlot::activate(std::shared_ptr<const LoadedMemory> memory) {
  impl_->active = std::move(memory);
  impl_->state = Stateless{};
  impl_->rows_since = 0;
  impl_->started_from = Sha256{};
  if (impl_->active == nullptr) return;
  impl_->started_from = impl_->active->sha256();
  Backend& backend = impl_->gpt.backend();
  std::visit([&](const auto& kind) { impl_->state = kind.start(backend); },
             impl_->active->any().kind);
}

const std::shared_ptr<const LoadedMemory>& SessionSlot::active() const { return impl_->active; }

void SessionSlot::forward(const SlotCall& call) {
  MEMSLOT_CHECK(call.slot == impl_->slot);
  for (std::int64_t row = 0; row < call.x.rows; row += kSlotRows) {
    const std::int64_t count = std::min(kSlotRows, call.x.rows - row);
    const SlotRun run{impl_->gpt.backend(), impl_->base(), call.x.slice_rows(row, count),
                      call.y.slice_rows(row, count), impl_->scratch};
    if (impl_->active == nullptr) {
      run_mlp(run, run.base);
      continue;
    }
    std::visit(
        [&](const auto& kind) {
          using State = typename std::decay_t<decltype(kind)>::State;
          kind.forward(run, std::get<State>(impl_->state));
        },
        impl_->active->any().kind);
  }
  impl_->rows_since += call.x.rows;
}

bool SessionSlot::dirty() const {
  return impl_->active != nullptr && is_stateful(impl_->active->kind()) &&
         (impl_->rows_since > 0 || impl_->started_from != impl_->active->sha256());
}

Result<MemoryPayload> SessionSlot::snapshot() const {
  if (impl_->active == nullptr) {
    return Error{ErrorCode::kNotSupported,
                 "state of a slot: expected a stateful memory, found base"};
  }
  return std::visit(
      [&](const auto& kind) -> Result<MemoryPayload> {
        using State = typename std::decay_t<decltype(kind)>::State;
        return kind.save(impl_->gpt.backend(), std::get<State>(impl_->state));
      },
      impl_->active->any().kind);
}

Status SessionSlot::restore(const MemoryPayload& payload) {
  if (impl_->active == nullptr) return mismatch("state of a slot", "a stateful memory", "base");
  MEMSLOT_TRY(std::visit(
      [&](const auto& kind) -> Status {
        MEMSLOT_TRY(auto state, kind.restore(impl_->gpt.backend(), payload));
        impl_->state = std::move(state);
        return ok();
      },
      impl_->active->any().kind));
  impl_->started_from = sha256(payload.bytes());
  impl_->rows_since = 0;
  return ok();
}

Status SessionSlot::copy_from(const SessionSlot& other) {
  activate(other.active());
  if (other.active() != nullptr && is_stateful(other.active()->kind())) {
    MEMSLOT_TRY(const MemoryPayload state, other.snapshot());
    MEMSLOT_TRY(restore(state));
  }
  // Where the other's state came from, not that it was copied: dirty() and digest() are the same.
  impl_->started_from = other.impl_->started_from;
  impl_->rows_since = other.impl_->rows_since;
  return ok();
}

std::string SessionSlot::digest() const {
  if (impl_->active == nullptr) return "";
  std::string name = impl_->started_from.hex();
  if (is_stateful(impl_->active->kind())) {
    name += '+';
    name += std::to_string(impl_->rows_since);
  }
  return name;
}

}  // namespace memslot
