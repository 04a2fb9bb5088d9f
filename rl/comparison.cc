#include "rl/comparison.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <set>

#include "rl/reinforce.h"

namespace memslot {
namespace {

using SelectorPtr = std::unique_ptr<Selector>;

constexpr std::uint64_t kRandomSeed = 1;
constexpr int kThresholds = 100;  // from -1 to 1
constexpr std::size_t kTimedDecisions = 2000;
constexpr double kTie = 0.02;  // of the mean gain on covered steps

// The selectors, and the environments in which they see the table.
class Contest {
 public:
  static Result<Contest> make(const GainTable& table, const std::vector<Checkpoint>& checkpoints);

  const StreamEnv& env() const { return *env_; }  // the policy's
  std::size_t seeds() const { return policies_.size(); }
  NearestSetting tune(std::uint32_t lag) const;

  struct Entry {
    const StreamEnv* env;
    const Selector* selector;
  };
  // The policies, one a seed, then the rules in order of their names below.
  std::vector<Entry> entries(const NearestSetting& nearest);

 private:
  const StreamEnv& in_window(std::uint32_t tokens) const;

  std::unique_ptr<StreamEnv> env_;
  std::vector<std::unique_ptr<StreamEnv>> windows_;  // others, for nearest
  std::vector<SelectorPtr> policies_, rules_;
};

constexpr const char* kRules[] = {"base",     "random",        "nearest", "wise",
                                  "audition", "lagged_oracle", "oracle"};

Status fits(const GainTable& table, const Checkpoint& c, const Checkpoint& first) {
  if (!c.task.model.empty() && c.task.model != table.model) {
    return memslot::mismatch("checkpoint's model", table.model, c.task.model);
  }
  if (c.task.layer >= 0 && c.task.layer != table.layer) {
    return memslot::mismatch("checkpoint's layer", table.layer, c.task.layer);
  }
  if (c.whitening.dim() != table.dim()) {
    return memslot::mismatch("width of the checkpoint's whitening", table.dim(), c.whitening.dim());
  }
  if (!(c.task == first.task) || c.whitening.digest() != first.whitening.digest()) {
    return memslot::mismatch("checkpoints", "seeds of one training",
                             "others: window, candidates or whitening differ");
  }
  return ok();
}

Result<Contest> Contest::make(const GainTable& table, const std::vector<Checkpoint>& checkpoints) {
  if (checkpoints.empty()) return invalid("checkpoints", "at least one", "none");
  Contest out;
  for (const Checkpoint& c : checkpoints) {
    MEMSLOT_TRY(fits(table, c, checkpoints[0]));
    MEMSLOT_TRY(auto policy, make_learned_policy(c));
    out.policies_.push_back(policy_selector("policy", std::move(policy)));
  }
  const PolicyTask& task = checkpoints[0].task;
  if (task.candidates < 2 || task.window_tokens < 1) {
    return invalid("checkpoint's candidates and window", "at least 2 and 1",
                   std::to_string(task.candidates) + " and " + std::to_string(task.window_tokens));
  }
  EnvOptions options{.candidates = task.candidates,
                     .window_tokens = task.window_tokens,
                     .long_window_tokens = task.long_window_tokens,
                     .swap_cost = task.swap_cost};
  out.env_ = std::make_unique<StreamEnv>(table, options, checkpoints[0].whitening);
  for (const std::uint32_t window : kTunedWindows) {
    if (window == task.window_tokens) continue;
    options.window_tokens = window;
    out.windows_.push_back(std::make_unique<StreamEnv>(table, options, checkpoints[0].whitening));
  }
  return out;
}

const StreamEnv& Contest::in_window(std::uint32_t tokens) const {
  for (const auto& env : windows_) {
    if (env->options().window_tokens == tokens) return *env;
  }
  return *env_;
}

NearestSetting Contest::tune(std::uint32_t lag) const {
  NearestSetting best = tune_nearest(*env_, lag);
  for (const auto& env : windows_) {
    const NearestSetting other = tune_nearest(*env, lag);
    if (other.validation_gain > best.validation_gain) best = other;
  }
  return best;
}

std::vector<Contest::Entry> Contest::entries(const NearestSetting& nearest) {
  rules_.clear();
  rules_.push_back(base_selector());
  rules_.push_back(random_selector(kRandomSeed));
  rules_.push_back(nearest_selector(nearest.threshold));
  rules_.push_back(wise_selector());
  rules_.push_back(audition_selector());
  rules_.push_back(lagged_oracle_selector());
  rules_.push_back(oracle_selector());
  std::vector<Entry> out;
  for (const auto& policy : policies_) out.push_back({env_.get(), policy.get()});
  for (std::size_t i = 0; i < rules_.size(); ++i) {
    MEMSLOT_CHECK(rules_[i]->name() == kRules[i]);
    const bool own_window = rules_[i]->name() == "nearest";
    out.push_back({own_window ? &in_window(nearest.window_tokens) : env_.get(), rules_[i].get()});
  }
  return out;
}

std::vector<std::size_t> streams_of(const StreamEnv& env, Split split, StreamKind kind) {
  std::vector<std::size_t> out;
  for (const std::size_t s : env.streams(split)) {
    if (env.table().streams[s].kind == kind) out.push_back(s);
  }
  return out;
}

struct Kind {
  const char* name;
  StreamKind kind = StreamKind::kStream;
  std::uint32_t lag = 0;
  const MeasuredGains* measured = nullptr;
};

Result<Score> score_of(const Contest::Entry& entry, const std::vector<std::size_t>& streams,
                       const Kind& kind) {
  std::vector<StreamScore> scores;
  for (const std::size_t stream : streams) {
    Schedule schedule{stream, roll_out(*entry.env, stream, *entry.selector, kind.lag)};
    std::span<const float> gains;
    if (kind.measured != nullptr) {
      const auto found = kind.measured->find(schedule);
      if (found == kind.measured->end()) {
        return Error{ErrorCode::kNotFound,
                     "activated gains of stream " + entry.env->table().streams[stream].id +
                         ": expected the schedule of " + entry.selector->name() + ", found none"};
      }
      gains = found->second;
    }
    scores.push_back(score_actions(*entry.env, stream, schedule.actions, gains));
  }
  return summarise(*entry.env, std::move(scores));
}

Result<Section> section(Contest& contest, Split split, const Kind& kind,
                        const NearestSetting& nearest) {
  Section out;
  out.name = kind.name;
  out.nearest = nearest;
  const auto streams = streams_of(contest.env(), split, kind.kind);
  if (streams.empty()) {
    out.absent = "the table has no such streams in this split";
    return out;
  }
  const auto entries = contest.entries(nearest);
  for (std::size_t i = 0; i < contest.seeds(); ++i) {
    MEMSLOT_TRY(auto score, score_of(entries[i], streams, kind));
    out.seeds.push_back(std::move(score));
  }
  out.selectors.push_back({"policy", mean_score(contest.env(), out.seeds), 0, {}});
  for (std::size_t i = contest.seeds(); i < entries.size(); ++i) {
    MEMSLOT_TRY(auto score, score_of(entries[i], streams, kind));
    const Score& policy = out.selectors[0].score;
    const double lead = policy.mean_gain - score.mean_gain;
    const Interval interval = paired_difference(contest.env(), policy, score);
    out.selectors.push_back({entries[i].selector->name(), std::move(score), lead, interval});
  }
  return out;
}

// Median time of a choice, the list of candidates included.
double decision_time(const Contest::Entry& entry, const std::vector<std::size_t>& streams) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (const std::size_t stream : streams) {
    const std::size_t steps = entry.env->table().streams[stream].steps.size();
    for (std::size_t t = entry.env->first_decision(stream); t < steps; ++t) {
      const auto begin = Clock::now();
      const auto chosen = entry.selector->choose(*entry.env, stream, t, {});
      const std::chrono::duration<double, std::micro> took = Clock::now() - begin;
      if (chosen >= kBaseAction) times.push_back(took.count());
      if (times.size() >= kTimedDecisions) break;
    }
  }
  if (times.empty()) return 0;
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

Target at_least(std::string name, double figure, double bound) {
  return {std::move(name), figure, bound, true, figure >= bound};
}
Target at_most(std::string name, double figure, double bound) {
  return {std::move(name), figure, bound, false, figure <= bound};
}
Target above_zero(std::string name, double figure) {
  return {std::move(name), figure, 0, true, figure > 0};
}

// What the policy must show; `policy` picks its score out of a section.
template <class Pick>
std::vector<Target> targets_of(const StreamEnv& env, const Comparison& c, Pick policy) {
  std::vector<Target> out;
  const Score& streams = policy(c.recompute);
  const Score& lagged = c.recompute.find("lagged_oracle")->score;
  const auto share = [](double of, double all) { return all > 0 ? of / all : 0.0; };
  out.push_back(at_least("net gain on streams / lagged oracle's",
                         share(streams.mean_gain, lagged.mean_gain), 0.95));
  for (const char* rule : {"base", "random", "nearest", "wise"}) {
    const Interval lead = paired_difference(env, streams, c.recompute.find(rule)->score);
    out.push_back(above_zero(std::string("lead over ") + rule + ", low end of 95 %", lead.low));
  }
  if (c.prompt.absent.empty()) {
    out.push_back(at_least(
        "net gain on prompts / oracle's",
        share(policy(c.prompt).mean_gain, c.prompt.find("oracle")->score.mean_gain), 0.92));
  }
  out.push_back(
      at_most("NLL of the corpus' uncovered text over base's", streams.corpus_nll, 0.005));
  if (c.control.absent.empty()) {
    out.push_back(at_least("base on control text", policy(c.control).base_share, 0.95));
  }
  return out;
}

void judge(const Contest& contest, Comparison& c) {
  if (!c.recompute.absent.empty()) return;
  const auto mean = [](const Section& s) -> const Score& { return s.selectors[0].score; };
  c.targets = targets_of(contest.env(), c, mean);
  for (std::size_t seed = 0; seed < contest.seeds(); ++seed) {
    const auto own = [seed](const Section& s) -> const Score& { return s.seeds[seed]; };
    const auto targets = targets_of(contest.env(), c, own);
    c.seeds_meet_targets.push_back(
        std::all_of(targets.begin(), targets.end(), [](const Target& t) { return t.met; }));
  }
  const Score& policy = mean(c.recompute);
  const Score& nearest = c.recompute.find("nearest")->score;
  c.covered_lead = policy.covered_gain - nearest.covered_gain;
  c.covered_ci95 = covered_difference(contest.env(), policy, nearest);
  c.tie = std::abs(c.covered_lead) <= kTie * std::abs(nearest.covered_gain);
}

}  // namespace

const Compared* Section::find(std::string_view selector) const {
  for (const Compared& c : selectors) {
    if (c.name == selector) return &c;
  }
  return nullptr;
}

NearestSetting tune_nearest(const StreamEnv& env, std::uint32_t lag) {
  NearestSetting best;
  for (int i = 0; i < kThresholds; ++i) {
    const float threshold = -1.0f + 2.0f * static_cast<float>(i) / kThresholds;
    const double gain = evaluate(env, Split::kValidation, *nearest_selector(threshold),
                                 {.lag = lag, .kind = StreamKind::kStream})
                            .mean_gain;
    if (i > 0 && gain <= best.validation_gain) continue;
    best = {env.options().window_tokens, threshold, gain};
  }
  return best;
}

Result<Comparison> compare(const GainTable& table, const std::vector<Checkpoint>& checkpoints,
                           const CompareOptions& options) {
  MEMSLOT_TRY(Contest contest, Contest::make(table, checkpoints));
  const NearestSetting nearest = contest.tune(0);
  Comparison out;
  const auto fill = [&](Section& to, const Kind& kind, const NearestSetting& tuned) -> Status {
    MEMSLOT_TRY(to, section(contest, options.split, kind, tuned));
    return ok();
  };
  MEMSLOT_TRY(fill(out.recompute, {"recompute"}, nearest));
  MEMSLOT_TRY(fill(out.async, {.name = "async", .lag = 1}, contest.tune(1)));
  MEMSLOT_TRY(fill(out.prompt, {"prompt", StreamKind::kPrompt}, nearest));
  MEMSLOT_TRY(fill(out.continuation, {"continuation", StreamKind::kContinuation}, nearest));
  MEMSLOT_TRY(fill(out.control, {"control", StreamKind::kControl}, nearest));
  if (options.activated != nullptr) {
    MEMSLOT_TRY(fill(out.activated, {.name = "activated", .measured = options.activated}, nearest));
  } else {
    out.activated.name = "activated";
    out.activated.absent =
        "a gain table holds what memories are worth over the whole prefix; with the session's own "
        "cache it must be measured by a generator that follows the choices (--schedules)";
  }
  const auto streams = streams_of(contest.env(), options.split, StreamKind::kStream);
  const auto entries = contest.entries(nearest);
  for (const std::size_t i :
       {std::size_t{0}, contest.seeds(), contest.seeds() + 1, contest.seeds() + 2}) {
    out.decision_us[entries[i].selector->name()] = decision_time(entries[i], streams);
  }
  judge(contest, out);
  return out;
}

Result<std::vector<Schedule>> schedules(const GainTable& table,
                                        const std::vector<Checkpoint>& checkpoints, Split split) {
  MEMSLOT_TRY(Contest contest, Contest::make(table, checkpoints));
  std::set<Schedule> out;
  for (const auto& entry : contest.entries(contest.tune(0))) {
    for (const std::size_t s : streams_of(contest.env(), split, StreamKind::kStream)) {
      out.insert({s, roll_out(*entry.env, s, *entry.selector)});
    }
  }
  return std::vector<Schedule>(out.begin(), out.end());
}

}  // namespace memslot
