#include "controller/step/write_back_handler.h"

#include <algorithm>

#include "controller/step/step_handler.h"
#include "shared/base/log.h"

namespace memslot {
namespace {

constexpr int kPublishTries = 3;

}  // namespace

Result<wire::WriteBackReply> WriteBackHandler::handle(const PeerId& peer,
                                                      const wire::WriteBack& request,
                                                      std::span<const std::byte> payload,
                                                      TimePoint deadline) {
  MEMSLOT_TRY(const Session* const session, sessions_.find(peer, request.session));
  const MemoryRef& ref = request.version.ref;
  if (!session->sees(ref.ns)) {
    return Error{ErrorCode::kNotFound,
                 "memory: expected one that exists, found none named " + ref.text()};
  }
  const auto& slots = session->open.slots;
  const SpaceKey space = SpaceKey::of(request.version.signature);
  if (std::none_of(slots.begin(), slots.end(), [&](const wire::SlotInfo& slot) {
        return space_of(session->open, slot) == space;
      })) {
    return mismatch(ref.text(), "a memory of one of the session's slots",
                    request.version.signature.text());
  }

  MemoryDraft draft;
  draft.meta = request.version;
  draft.payload = payload;
  draft.expected = request.expected;
  draft.meta.origin = VersionOrigin::kWriteBack;
  draft.meta.origin_id = "session " + std::to_string(request.session);
  MemoryKeys keys;
  std::string source;
  if (!request.expected.empty()) {
    MEMSLOT_TRY(const auto parent, bank_.version_of_token(ref, request.expected, deadline));
    draft.meta.source = parent.source;
    if (parent.keys > 0) {
      MEMSLOT_TRY(keys, bank_.load_keys(parent, deadline));
      draft.keys = &keys;
    }
    auto text = bank_.load_source(parent, deadline);
    if (text) {
      source = std::move(text).value();
      draft.source_text = source;
    } else if (text.error().code == ErrorCode::kCorruption) {
      log::warn("write-back of {}: stored without its source text: {}", ref.text(),
                text.error().message);
    } else if (text.error().code != ErrorCode::kNotFound) {
      return text.error();
    }
  }
  auto published = bank_.publish_memory(draft, deadline);
  for (int i = 1; i < kPublishTries && !published; ++i) {
    if (published.error().code != ErrorCode::kIndeterminate) break;
    published = bank_.publish_memory(draft, deadline);
  }
  if (!published) return published.error().with_context("write-back of " + ref.text());
  if (!published.value().conflict()) keeper_.changed(ref);
  return wire::WriteBackReply{.conflict = published.value().conflict(),
                              .version = published.value().version};
}

}  // namespace memslot
