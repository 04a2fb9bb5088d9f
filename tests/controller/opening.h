#pragma once
// A session as a generator with one slot of the tests' memories opens it.
#include <string>

#include "shared/wire/messages.h"
#include "tests/controller/memories.h"

namespace memslot {

inline wire::OpenSession opening(const std::string& policy = "nearest:0.2",
                                 std::uint64_t number = 5) {
  wire::OpenSession open;
  open.session = number;
  open.incarnation = 9;
  open.model = slot_signature().model;
  open.slots = {{.layer = 3, .form = MlpForm::kSwiGlu, .d_model = kDim, .d_ff = 16}};
  open.namespaces = {"default"};
  open.policy = policy;
  open.seed = 7;
  return open;
}

}  // namespace memslot
