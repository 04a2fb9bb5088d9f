#pragma once
// Sessions of an online learner in the world of a gain table.
#include <gtest/gtest.h>

#include <memory>

#include "rl/evaluate.h"
#include "rl/online_learner.h"
#include "rl/train.h"
#include "shared/base/rng.h"
#include "tests/rl/synthetic_table.h"

namespace memslot::testing_support {

// A policy that chooses well in `table`, and still draws what it has not settled on: without a
// prior and with a high entropy bonus. What the defaults leave is nearly certain of itself; from
// that, 300 sessions learn little (decision 5).
inline Checkpoint trained_policy(const GainTable& table, std::uint64_t seed = 1,
                                 std::uint32_t updates = 40) {
  TrainOptions options;
  options.reinforce.seed = seed;
  options.streams = 8;
  options.rollouts = 2;
  options.imitation = 40;
  options.updates = updates;
  options.patience = 12;
  options.rank = 16;
  options.hidden = 32;
  options.env.margin = 0.04f;
  options.reinforce.prior = {};
  options.reinforce.gamma = 0.2f;
  options.reinforce.entropy_bonus = 0.05f;
  options.reinforce.entropy_decay = 0.99f;
  options.reinforce.averaging = options.hide_source = options.hide_memory = 0.0f;
  auto trained = train(table, options);
  EXPECT_TRUE(trained) << trained.error().message;
  return trained.value().best;
}

// The sources were rewritten: what their memories held now misleads.
inline GainTable stale(GainTable table, float gain = -0.6f) {
  for (float& g : table.gain.values) {
    if (g > 0) g = gain;
  }
  return table;
}

// Two kinds of memories: the first of each source is an mlp, the others are lora.
inline GainTable with_two_kinds(GainTable table) {
  for (TableMemory& m : table.memories) {
    if (m.ref.id.back() == '0') m.kind = MemoryKind::kMlp;
  }
  return table;
}

// The memories of one kind were learned for another model: where they helped (by 0.9) they now do
// harm by as much. The others still help.
inline GainTable one_kind_stale(GainTable table) {
  for (std::size_t i = 0; i < table.gain.values.size(); ++i) {
    const bool mlp = table.memories[i % table.memories.size()].kind == MemoryKind::kMlp;
    float& gain = table.gain.values[i];
    if (mlp && gain > 0.3f) gain -= 1.8f;
  }
  return table;
}

class LiveWorld {
 public:
  LiveWorld(const GainTable& table, const Checkpoint& policy, OnlineOptions options = {})
      : env_(std::make_unique<StreamEnv>(table, EnvOptions{})), acting_(policy) {
    learner_ = OnlineLearner::make(policy, torch_engine(), options).value();
    policy_ = make_learned_policy(policy).value();
  }

  // From the next session on. The table must outlive it.
  void becomes(const GainTable& table) { env_ = std::make_unique<StreamEnv>(table, EnvOptions{}); }
  // As if the guard had let it pass.
  void publish(const Checkpoint& policy) {
    acting_ = policy;
    policy_ = make_learned_policy(policy).value();
    ASSERT_TRUE(learner_->published(policy, /*revert=*/false));
  }

  // One session on a stream drawn by its number. What it earned is known (`measured`), or somebody
  // says `feedback` of the whole.
  void session(std::uint64_t number, std::optional<float> feedback = {}) {
    const auto streams = env_->streams(Split::kTrain);
    const std::size_t stream = streams[uniform_below(streams.size(), 77, number, 0)];
    Episode episode;
    EnvState state;
    for (std::size_t t = env_->first_decision(stream);
         t < env_->table().streams[stream].steps.size(); ++t) {
      EnvDecision decision = env_->decision(stream, t, state);
      decision.context.session = number;
      decision.context.explore = true;
      const Choice choice = policy_->choose(decision.context, decision.candidates);
      EpisodeStep step = step_of(decision.context, decision.candidates, env_->key_dim());
      step.action = static_cast<std::uint32_t>(choice.index);
      step.log_prob = choice.log_prob;
      const std::int32_t action = decision.actions[choice.index];
      step.reward = feedback ? *feedback : env_->reward(stream, t, state, action);
      state = env_->after(state, action);
      episode.steps.push_back(std::move(step));
    }
    auto proposal = learner_->add(std::move(episode), !feedback);
    ASSERT_TRUE(proposal) << proposal.error().message;
    if (!proposal.value()) return;
    acting_ = proposal.value()->checkpoint;
    policy_ = make_learned_policy(acting_).value();
    ASSERT_TRUE(learner_->published(acting_, proposal.value()->revert));
  }

  // Nats per token of the policy that acts, taking its best action, on streams that no session had.
  double worth() const {
    return evaluate(*env_, Split::kTest, *policy_selector("policy", policy_)).mean_gain;
  }
  // ... and of its actions drawn, as live sessions that are learned from do.
  double worth_drawn() const {
    double gain = 0, steps = 0;
    for (const std::size_t stream : env_->streams(Split::kTest)) {
      for (std::uint64_t draw = 0; draw < 4; ++draw) {
        EnvState state;
        for (std::size_t t = env_->first_decision(stream);
             t < env_->table().streams[stream].steps.size(); ++t) {
          EnvDecision decision = env_->decision(stream, t, state);
          decision.context.session = 1'000'000 + draw;
          decision.context.explore = true;
          const auto choice = policy_->choose(decision.context, decision.candidates);
          const std::int32_t action = decision.actions[choice.index];
          gain += static_cast<double>(env_->net(stream, t, action));
          state = env_->after(state, action);
          ++steps;
        }
      }
    }
    return gain / steps;
  }
  const OnlineLearner& learner() const { return *learner_; }
  const Checkpoint& acting() const { return acting_; }

 private:
  std::unique_ptr<StreamEnv> env_;
  Checkpoint acting_;
  std::unique_ptr<OnlineLearner> learner_;
  std::shared_ptr<const SelectionPolicy> policy_;
};

}  // namespace memslot::testing_support
