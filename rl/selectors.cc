#include "rl/selectors.h"

#include "shared/base/rng.h"

namespace memslot {
namespace {

class PolicySelector final : public Selector {
 public:
  PolicySelector(std::string name, std::shared_ptr<const SelectionPolicy> policy)
      : name_(std::move(name)), policy_(std::move(policy)) {}
  std::string name() const override { return name_; }
  std::int32_t choose(const StreamEnv& env, std::size_t stream, std::size_t step,
                      const EnvState& state) const override {
    const EnvDecision decision = env.decision(stream, step, state);
    return decision.actions[policy_->choose(decision.context, decision.candidates).index];
  }

 private:
  std::string name_;
  std::shared_ptr<const SelectionPolicy> policy_;
};

// A rule that needs no state of its own.
template <class Rule>
class RuleSelector final : public Selector {
 public:
  RuleSelector(std::string name, Rule rule) : name_(std::move(name)), rule_(std::move(rule)) {}
  std::string name() const override { return name_; }
  std::int32_t choose(const StreamEnv& env, std::size_t stream, std::size_t step,
                      const EnvState& state) const override {
    return rule_(env, stream, step, state);
  }

 private:
  std::string name_;
  Rule rule_;
};

template <class Rule>
std::unique_ptr<Selector> make_rule(std::string name, Rule rule) {
  return std::make_unique<RuleSelector<Rule>>(std::move(name), std::move(rule));
}

// The memory of the highest value above `least`, else base. Ties go to the first.
template <class Value>
std::int32_t highest(const StreamEnv& env, float least, Value value) {
  std::int32_t best = kBaseAction;
  for (std::size_t m = 0; m < env.table().memories.size(); ++m) {
    const float v = value(m);
    if (v > least) {
      least = v;
      best = static_cast<std::int32_t>(m);
    }
  }
  return best;
}

}  // namespace

std::unique_ptr<Selector> policy_selector(std::string name,
                                          std::shared_ptr<const SelectionPolicy> policy) {
  return std::make_unique<PolicySelector>(std::move(name), std::move(policy));
}

std::unique_ptr<Selector> base_selector() {
  return make_rule("base", [](const StreamEnv&, std::size_t, std::size_t, const EnvState&) {
    return kBaseAction;
  });
}

std::unique_ptr<Selector> random_selector(std::uint64_t seed) {
  return make_rule("random", [seed](const StreamEnv& env, std::size_t stream, std::size_t step,
                                    const EnvState&) {
    const auto& scored = env.table().streams[stream].scored;
    const std::size_t n = scored.empty() ? env.table().memories.size() : scored.size();
    if (n == 0) return kBaseAction;
    const std::size_t drawn = uniform_below(n, seed, stream, step);
    return static_cast<std::int32_t>(scored.empty() ? drawn : scored[drawn]);
  });
}

std::unique_ptr<Selector> nearest_selector(float threshold) {
  return make_rule("nearest", [threshold](const StreamEnv& env, std::size_t stream,
                                          std::size_t step, const EnvState& state) {
    if (!env.has_query(stream, step)) return state.active;
    return highest(env, threshold, [&](std::size_t m) { return env.best_key(stream, step, m); });
  });
}

std::unique_ptr<Selector> wise_selector(float ratio) {
  return make_rule(
      "wise", [ratio](const StreamEnv& env, std::size_t stream, std::size_t step, const EnvState&) {
        if (step == 0) return kBaseAction;
        const GainTable& table = env.table();
        const std::uint64_t at = env.row(stream, step - 1) * table.memories.size();
        return highest(env, 0.0f, [&](std::size_t m) {
          const float delta = table.activation.values[at + m];
          return delta > ratio * table.memories[m].wise_min_activation ? delta : -1.0f;
        });
      });
}

std::unique_ptr<Selector> audition_selector() {
  return make_rule("audition", [](const StreamEnv& env, std::size_t stream, std::size_t step,
                                  const EnvState& state) {
    std::int32_t best = kBaseAction;
    if (step == 0) return best;
    float most = 0.0f;
    for (const std::int32_t action : env.decision(stream, step, state).actions) {
      const float net = env.net(stream, step - 1, action);
      if (net > most) {
        most = net;
        best = action;
      }
    }
    return best;
  });
}

std::unique_ptr<Selector> lagged_oracle_selector() {
  return make_rule("lagged_oracle",
                   [](const StreamEnv& env, std::size_t stream, std::size_t step, const EnvState&) {
                     return step == 0 ? kBaseAction : env.oracle(stream, step - 1);
                   });
}

std::unique_ptr<Selector> oracle_selector() {
  return make_rule("oracle", [](const StreamEnv& env, std::size_t stream, std::size_t step,
                                const EnvState&) { return env.oracle(stream, step); });
}

}  // namespace memslot
