// A controller that restarts, or loses a session, chooses on as if nothing had been: the same
// stream of observations through one step handler, and through one that is replaced on the way.
#include <gtest/gtest.h>

#include <bit>

#include "controller/step/step_handler.h"
#include "tests/controller/memories.h"

namespace memslot {
namespace {

const PeerId kPeer = "generator-1";
constexpr std::uint64_t kSteps = 30;
constexpr unsigned kMemories = 12;

// What a controller keeps in its RAM.
struct Controller {
  explicit Controller(TestBank& bank)
      : keeper(bank.bank(), bank.clock(), [] {}),
        payloads(bank.bank(), 1 << 20),
        steps(bank.bank(), keeper, payloads, sessions, {}) {
    EXPECT_TRUE(keeper.build());
  }
  IndexKeeper keeper;
  PayloadCache payloads;
  SessionTable sessions{4};
  StepHandler steps;
};

// The generator's side: it follows every directive, and knows what it read and what it holds.
class Stream {
 public:
  explicit Stream(std::uint64_t seed) : rng_(static_cast<unsigned>(seed)) {}

  // The text of the next step; it wanders from memory to memory, three steps at each.
  void read() {
    const unsigned about = static_cast<unsigned>(step_ / 3 * 5) % kMemories;
    const std::uint32_t tokens = step_ % 4 == 3 ? 5 : 16;
    news_ = {{keys_around(centre_of(about), 1, 0.8f, rng_), tokens}};
    window_.push_back(news_[0]);
    if (window_.size() > 12) window_.erase(window_.begin());
  }
  wire::Observation observe(bool everything, bool window = true) const {
    wire::Observation o;
    o.session = 5;
    o.step = step_;
    o.chunks = everything && window ? window_ : news_;
    o.whole_window = everything;
    o.tokens = 16;
    o.surprise = static_cast<float>(step_) * 0.25f;
    o.active = {{.slot = 0, .ref = active_, .reason = wire::ActiveReason::kDirective}};
    o.steps_since_swap = since_swap_;
    o.residents.epoch = step_ + 2;
    o.residents.base_epoch = everything ? 0 : step_ + 1;
    if (everything) {
      o.residents.added.assign(residents_.begin(), residents_.end());
    } else if (fresh_) {
      o.residents.added = {*fresh_};
    }
    return o;
  }
  void follow(const wire::Directive& directive) {
    const wire::SlotAction& action = directive.actions.at(0);
    fresh_.reset();
    ++since_swap_;
    if (action.action != wire::ActionKind::kKeep) since_swap_ = 1;
    if (action.action == wire::ActionKind::kBase) active_ = {};
    if (action.action == wire::ActionKind::kUse) {
      active_ = action.ref;
      if (residents_.insert({0, active_}).second) fresh_ = wire::Resident{0, active_};
    }
    ++step_;
  }

 private:
  std::mt19937 rng_;
  std::uint64_t step_ = 0;
  std::vector<wire::ChunkSummary> news_, window_;
  MemoryRef active_;
  std::uint32_t since_swap_ = 1;
  std::set<wire::Resident> residents_;
  std::optional<wire::Resident> fresh_;
};

struct Case {
  const char* name;
  const char* policy;
  std::uint64_t seed;
};

class Restart : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::mt19937 rng(3);
    for (unsigned i = 0; i < kMemories; ++i) {
      bank_.publish({.id = numbered(i),
                     .keys = keys_around(centre_of(i), 6, 0.3f, rng),
                     .value = static_cast<float>(i) + 0.5f});
    }
  }
  void open(Controller& controller) {
    wire::OpenSession open;
    open.session = 5;
    open.incarnation = 9;
    open.model = slot_signature().model;
    open.slots = {{.layer = 3, .form = MlpForm::kSwiGlu, .d_model = kDim, .d_ff = 16}};
    open.namespaces = {"default"};
    open.policy = GetParam().policy;
    open.seed = GetParam().seed;
    open.explore = true;
    ASSERT_TRUE(controller.steps.open(kPeer, open, kFarDeadline));
  }
  static wire::Directive ask(Controller& controller, const wire::Observation& observation) {
    auto plan = controller.steps.handle(kPeer, observation, kFarDeadline);
    if (!plan) {
      ADD_FAILURE() << plan.error().message;
      return {};
    }
    return plan.value().directive;
  }
  // One controller from the first step to the last.
  std::vector<wire::Directive> undisturbed() {
    Controller controller(bank_);
    open(controller);
    Stream stream(GetParam().seed);
    std::vector<wire::Directive> out;
    for (std::uint64_t step = 0; step < kSteps; ++step) {
      stream.read();
      out.push_back(ask(controller, stream.observe(step == 0)));
      stream.follow(out.back());
    }
    return out;
  }
  // Another takes over at step `at`; with `answered`, after the first had seen that observation.
  std::vector<wire::Directive> restarted(std::uint64_t at, bool answered, bool window = true) {
    auto controller = std::make_unique<Controller>(bank_);
    open(*controller);
    Stream stream(GetParam().seed);
    std::vector<wire::Directive> out;
    for (std::uint64_t step = 0; step < kSteps; ++step) {
      stream.read();
      if (step == at) {
        if (answered) ask(*controller, stream.observe(false));
        controller = std::make_unique<Controller>(bank_);
        const auto unknown = controller->steps.handle(kPeer, stream.observe(false), kFarDeadline);
        EXPECT_FALSE(unknown);
        open(*controller);
      }
      out.push_back(ask(*controller, stream.observe(step == 0 || step == at, window)));
      stream.follow(out.back());
    }
    return out;
  }

  TestBank bank_;
};

void expect_same(const std::vector<wire::Directive>& want,
                 const std::vector<wire::Directive>& got) {
  ASSERT_EQ(want.size(), got.size());
  for (std::size_t step = 0; step < want.size(); ++step) {
    EXPECT_TRUE(want[step] == got[step]) << "step " << step;
    EXPECT_EQ(std::bit_cast<std::uint32_t>(want[step].log_prob),
              std::bit_cast<std::uint32_t>(got[step].log_prob))
        << "step " << step;
  }
}

TEST_P(Restart, ChoosesOnAsIfNothingHadBeen) {
  const auto want = undisturbed();
  std::set<std::string> chosen;
  for (const wire::Directive& d : want) chosen.insert(d.actions.at(0).ref.id);
  EXPECT_GT(chosen.size(), 4u) << "a stream that moves about";
  for (const std::uint64_t at : {1, 4, 5, 17, 29}) {
    SCOPED_TRACE(testing::Message() << "restarted at step " << at);
    expect_same(want, restarted(at, /*answered=*/false));
    expect_same(want, restarted(at, /*answered=*/true));
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, Restart,
                         testing::Values(Case{"Nearest", "nearest", 1},
                                         Case{"NearestThreshold", "nearest:0.5", 2},
                                         Case{"Random", "random", 3},
                                         Case{"RandomOtherSeed", "random", 4}),
                         [](const auto& param_info) { return param_info.param.name; });

using RestartWithoutWindow = Restart;

// What the tests above rest on: the newest step alone says something else.
TEST_P(RestartWithoutWindow, ChoosesOtherwiseSomewhere) {
  const auto want = undisturbed();
  bool other = false;
  for (std::uint64_t at = 1; at < kSteps && !other; ++at) {
    other = restarted(at, /*answered=*/false, /*window=*/false)[at] != want[at];
  }
  EXPECT_TRUE(other);
}

INSTANTIATE_TEST_SUITE_P(Policies, RestartWithoutWindow,
                         testing::Values(Case{"Nearest", "nearest", 1}),
                         [](const auto& param_info) { return param_info.param.name; });

}  // namespace
}  // namespace memslot
