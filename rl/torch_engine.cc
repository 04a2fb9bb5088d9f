#include "rl/policy_engine.h"

namespace memslot {

PolicyEngine torch_engine() {
  return {.make_policy = make_learned_policy, .go_on_from = ReinforceLearner::go_on_from};
}

}  // namespace memslot
