#pragma once
// Whether a payload holds what its own signature says: the tensors, shapes and scalars of the kind
// and form. Asked before a memory is stored; load() asks the same of what it gets.
//
// Not asked: finiteness (MemoryPayload::check_finite()), and whether a `delta` state is of the size
// of its outer parameters, which are another payload.
//
// Threads: a pure function.
#include "shared/memory/payload.h"

namespace memslot {

// kMismatch: tensors of another kind or form, or shapes that are not the signature's. kCorruption:
// scalars out of limits. A kind that this build does not implement is not judged: ok.
Status check_layout(const MemoryPayload& payload);

}  // namespace memslot
