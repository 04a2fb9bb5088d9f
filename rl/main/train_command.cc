#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>

#include "rl/comparison.h"
#include "rl/main/commands.h"
#include "rl/main/console.h"
#include "rl/report/training_log.h"
#include "shared/files/write_file.h"

namespace memslot::rl_program {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr const char* kFooter =
    "Files, FILE being what --out names:\n"
    "  FILE              the policy with the best net gain on validation, to load or evaluate\n"
    "  FILE.state        everything to go on from; removed by nothing\n"
    "  FILE.curve.jsonl  one JSON object a look: return, entropy, and on validation net gain,\n"
    "                    regret, accuracy, abstention, swaps per 100 tokens, base on\n"
    "                    control text\n"
    "  FILE.html         the same as plots, in a page of its own\n"
    "Each is replaced as a whole, at every look.\n"
    "\n"
    "The same table, options and seed give the same FILE, bit for bit; also where training was\n"
    "interrupted (Ctrl-C saves and ends with 24) and went on with --resume.\n"
    "\n"
    "Example: five seeds of a policy\n"
    "  for s in 1 2 3 4 5; do memslot train gains.safetensors --out policy$s.safetensors --seed "
    "$s; "
    "done";

std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);
void on_signal(int) { interrupted = true; }

struct Arguments {
  std::string table, out, baseline = "rloo", window = "auto";
  TrainOptions options;
  bool resume = false;
};

struct Paths {
  std::string policy, state, curve, page;
  explicit Paths(const std::string& out)
      : policy(out), state(out + ".state"), curve(out + ".curve.jsonl"), page(out + ".html") {}
};

json describe(const Arguments& a) {
  const TrainOptions& o = a.options;
  return {{"baseline", a.baseline},
          {"learning_rate", o.reinforce.learning_rate},
          {"gamma", o.reinforce.gamma},
          {"entropy", o.reinforce.entropy_bonus},
          {"entropy_decay", o.reinforce.entropy_decay},
          {"clip_norm", o.reinforce.clip_norm},
          {"averaging", o.reinforce.averaging},
          {"prior", o.reinforce.prior.sharpness},
          {"candidates", o.env.candidates},
          {"window_tokens", o.env.window_tokens},
          {"long_window_tokens", o.env.long_window_tokens},
          {"swap_cost", o.env.swap_cost},
          {"margin", o.env.margin},
          {"rank", o.rank},
          {"hidden", o.hidden},
          {"streams", o.streams},
          {"rollouts", o.rollouts},
          {"hide_source", o.hide_source},
          {"hide_memory", o.hide_memory},
          {"updates", o.updates},
          {"warm_start", o.imitation},
          {"look_every", o.look_every},
          {"patience", o.patience}};
}

// What curves are held against.
json references(const StreamEnv& env) {
  json out = json::object();
  for (const auto& selector : {oracle_selector(), lagged_oracle_selector()}) {
    const std::string name = selector->name() == "oracle" ? "oracle" : "lagged oracle";
    out[name] = evaluate(env, Split::kValidation, *selector).mean_gain;
  }
  return out;
}

class TrainCommand {
 public:
  TrainCommand(const Arguments& arguments, const Console& console)
      : a_(arguments), console_(console), paths_(arguments.out) {}
  Result<json> run();

 private:
  Status begin(const LoadedTable& loaded);
  Status choose_window(const GainTable& table);
  Status save() const;
  Status train();
  void show(const TrainPoint& point) const;
  void show_progress() const;
  json summary() const;
  double seconds() const {
    return before_ + std::chrono::duration<double>(Clock::now() - start_).count();
  }

  Arguments a_;
  const Console& console_;
  Paths paths_;
  std::unique_ptr<Training> training_;
  TrainingLog log_;
  double target_ = 0;  // the lagged oracle's net gain on validation
  Score last_;
  std::string ended_ = "updates";
  Clock::time_point start_ = Clock::now();
  double before_ = 0;  // seconds of training before this run
};

Status check_folder(const std::string& out) {
  const auto folder = std::filesystem::path(out).parent_path();
  const std::string path = folder.empty() ? "." : folder.string();
  std::error_code failure;
  if (!std::filesystem::is_directory(path, failure)) {
    return Error{ErrorCode::kNotFound, "--out: expected a folder " + path + ", found none"};
  }
  if (access(path.c_str(), W_OK) != 0) {
    return Error{ErrorCode::kPermission, "--out: cannot write into " + path};
  }
  return ok();
}

// The one in which the nearest key alone does best on validation.
Status TrainCommand::choose_window(const GainTable& table) {
  EnvOptions& env = a_.options.env;
  if (a_.window != "auto") {
    env.window_tokens = static_cast<std::uint32_t>(std::stoul(a_.window));
    return ok();
  }
  const Whitening whitening = training_whitening(table);
  std::optional<NearestSetting> best;
  for (const std::uint32_t window : kTunedWindows) {
    env.window_tokens = window;
    const NearestSetting setting = tune_nearest(StreamEnv(table, env, whitening));
    if (!best || setting.validation_gain > best->validation_gain) best = setting;
  }
  env.window_tokens = best->window_tokens;
  console_.line(
      format("queries are the mean of %u tokens (nearest key: %.3f nats a token on "
             "validation)",
             env.window_tokens, best->validation_gain));
  return ok();
}

Status TrainCommand::begin(const LoadedTable& loaded) {
  std::optional<Checkpoint> state;
  if (a_.resume) {
    MEMSLOT_TRY(state, Checkpoint::load(paths_.state));
  }
  MEMSLOT_TRY(training_,
              Training::begin(loaded.table, loaded.digest, a_.options, state ? &*state : nullptr));
  const json held = references(training_->env());
  target_ = held.value("lagged oracle", 0.0);
  log_ = TrainingLog::begin({{"table", loaded.digest},
                             {"seed", a_.options.reinforce.seed},
                             {"options", describe(a_)},
                             {"references", held}});
  if (a_.resume) {
    MEMSLOT_TRY(auto before, TrainingLog::load(paths_.curve, training_->updates()));
    before_ = before.seconds();
    if (!before.empty()) log_ = std::move(before);
  }
  return ok();
}

Status TrainCommand::save() const {
  MEMSLOT_TRY(training_->state().save(paths_.state));
  if (!training_->best().tensors.empty()) {
    MEMSLOT_TRY(training_->best().save(paths_.policy));
  }
  MEMSLOT_TRY(write_file(paths_.curve, log_.text()));
  return write_file(paths_.page, log_.page());
}

void TrainCommand::show(const TrainPoint& p) const {
  const Score& v = p.validation;
  const std::string control =
      p.control_base ? format("%5.1f %%", 100 * *p.control_base) : std::string("-");
  console_.line(
      format("update %5llu  return %7.3f  entropy %5.3f | validation: gain %6.3f "
             "(%5.1f %% of lagged oracle)  regret %5.3f  accuracy %4.1f %%  "
             "abstention %4.1f %% (control text %s)  swaps/100 %4.2f | %6.0f steps/s%s",
             static_cast<unsigned long long>(p.update), p.report.mean_return, p.report.entropy,
             v.mean_gain, target_ > 0 ? 100 * v.mean_gain / target_ : 0.0, v.regret,
             100 * v.accuracy, 100 * v.abstention, control.c_str(), v.swaps_per_100,
             p.steps_per_second, p.best ? "  best" : ""));
}

void TrainCommand::show_progress() const {
  if (training_->imitated() < a_.options.imitation) {
    console_.status(format("warm start %llu of %u  %.0f s",
                           static_cast<unsigned long long>(training_->imitated()),
                           a_.options.imitation, seconds()));
    return;
  }
  const double share = static_cast<double>(training_->updates()) / std::max(a_.options.updates, 1u);
  std::string bar(30, '.');
  std::fill_n(bar.begin(), static_cast<std::size_t>(30 * std::min(share, 1.0)), '#');
  console_.status(format("[%s] update %llu of %u  best %.3f at %llu  %.0f s", bar.c_str(),
                         static_cast<unsigned long long>(training_->updates()), a_.options.updates,
                         training_->best_gain(),
                         static_cast<unsigned long long>(training_->best_update()), seconds()));
}

Status TrainCommand::train() {
  while (!training_->done() && !interrupted) {
    MEMSLOT_TRY(const auto point, training_->advance());
    show_progress();
    if (!point) continue;
    log_.look(*point, seconds());
    last_ = point->validation;
    show(*point);
    MEMSLOT_TRY(save());
  }
  if (!training_->done()) {
    ended_ = "interrupt";
  } else if (training_->updates() < a_.options.updates) {
    ended_ = "patience";
  }
  return ok();
}

json TrainCommand::summary() const {
  return {{"ended", ended_},
          {"updates", training_->updates()},
          {"best_update", training_->best_update()},
          {"best_gain", training_->best_gain()},
          {"lagged_oracle", target_},
          {"seconds", seconds()}};
}

Result<json> TrainCommand::run() {
  MEMSLOT_TRY(check_options(a_.options));
  MEMSLOT_TRY(check_folder(a_.out));
  MEMSLOT_TRY(const LoadedTable loaded, load_table(a_.table));
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  MEMSLOT_TRY(choose_window(loaded.table));
  MEMSLOT_TRY(begin(loaded));
  MEMSLOT_TRY(train());
  json done = summary();
  if (ended_ != "interrupt") log_.end(done);
  MEMSLOT_TRY(save());
  if (ended_ == "interrupt") {
    return Error{ErrorCode::kCancelled, "interrupted at update " +
                                            std::to_string(training_->updates()) +
                                            ": saved, go on with --resume"};
  }
  done["policy"] = paths_.policy;
  done["digest"] = training_->best().digest();
  done["state"] = paths_.state;
  done["curve"] = paths_.curve;
  done["page"] = paths_.page;
  console_.line(
      format("ended by %s: best net gain on validation %.3f nats a token at update %llu "
             "(lagged oracle %.3f), %.0f s",
             ended_.c_str(), training_->best_gain(),
             static_cast<unsigned long long>(training_->best_update()), target_,
             done["seconds"].get<double>()));
  console_.line(paths_.policy + "  " + paths_.page);
  return done;
}

void add_learning_options(CLI::App& command, Arguments& a) {
  ReinforceOptions& r = a.options.reinforce;
  command
      .add_option("--baseline", a.baseline,
                  "What returns are held against: rloo (the other rollouts of the stream), value "
                  "(a learned one) or none")
      ->check(CLI::IsMember({"rloo", "value", "none"}))
      ->capture_default_str();
  command.add_option("--learning-rate", r.learning_rate, "Of Adam")
      ->check(number_in(1e-7, 1))
      ->capture_default_str();
  command
      .add_option("--gamma", r.gamma,
                  "Discount a step; above 0 where swaps have a cost, which a choice saves later")
      ->check(number_in(0, 1))
      ->capture_default_str();
  command.add_option("--entropy", r.entropy_bonus, "Weight of the entropy bonus at the beginning")
      ->check(number_in(0, 10))
      ->capture_default_str();
  command.add_option("--entropy-decay", r.entropy_decay, "Factor of that weight an update")
      ->check(number_in(0, 1))
      ->capture_default_str();
  command.add_option("--clip-norm", r.clip_norm, "Largest L2 norm of a gradient")
      ->check(number_in(1e-6, 1e6))
      ->capture_default_str();
  command
      .add_option("--averaging", r.averaging,
                  "Publish the running mean of the parameters that keeps so much of itself at an "
                  "update; 0: the last ones")
      ->check(number_in(0, 0.9999))
      ->capture_default_str();
  command
      .add_option("--prior", r.prior.sharpness,
                  "Begin as nearest key with the best threshold on validation, a unit of cosine "
                  "worth so many logits; 0: at random")
      ->check(number_in(0, 1000))
      ->capture_default_str();
  command.add_option("--rank", a.options.rank, "Of the learned match of query and key")
      ->check(number_in(1, 256))
      ->capture_default_str();
  command.add_option("--hidden", a.options.hidden, "Width of the scorer")
      ->check(number_in(1, 1024))
      ->capture_default_str();
}

void add_stream_options(CLI::App& command, Arguments& a) {
  TrainOptions& o = a.options;
  command.add_option("--streams", o.streams, "Streams an update")
      ->check(number_in(1, 4096))
      ->capture_default_str();
  command.add_option("--rollouts", o.rollouts, "Rollouts of each; at least 2 with rloo")
      ->check(number_in(1, 64))
      ->capture_default_str();
  command
      .add_option("--hide-source", o.hide_source,
                  "Probability that an update's drawing of a stream does without the memories of a "
                  "source")
      ->check(number_in(0, 1))
      ->capture_default_str();
  command.add_option("--hide-memory", o.hide_memory, "The same for any one memory")
      ->check(number_in(0, 1))
      ->capture_default_str();
  command.add_option("--candidates", o.env.candidates, "K, base included")
      ->check(number_in(2, 32))
      ->capture_default_str();
  command
      .add_option("--window", a.window,
                  "Tokens that a query is the mean of; auto: of 16, 32, 48 and 64 the window in "
                  "which nearest key does best on validation")
      ->check(CLI::IsMember({"auto"}) | whole_number_in(1, 128))
      ->capture_default_str();
  command.add_option("--long-window", o.env.long_window_tokens, "Tokens of the longer query")
      ->check(whole_number_in(1, 128))
      ->capture_default_str();
  command
      .add_option("--margin", o.env.margin,
                  "Nats a token that a memory must be worth, taken off the reward while one is "
                  "active")
      ->check(number_in(0, 100))
      ->capture_default_str();
  command
      .add_option("--swap-cost", o.env.swap_cost, "Nats a token, taken off the reward at a swap")
      ->check(number_in(0, 100))
      ->capture_default_str();
}

}  // namespace

void add_train(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand(
      "train", "Learn a policy from a gain table, by REINFORCE, and keep the best on validation");
  command->footer(kFooter);
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  auto a = std::make_shared<Arguments>();
  command->add_option("table", a->table, "Gain table (docs/formats/gains.md)")->required();
  command->add_option("--out,-o", a->out, "Where the policy goes")->required();
  command->add_option("--seed", a->options.reinforce.seed, "Of every draw")
      ->check(number_in(0, 9007199254740992.0))
      ->capture_default_str();
  command->add_option("--updates", a->options.updates, "At most so many, rounded up to a look")
      ->check(number_in(0, 1e6))
      ->capture_default_str();
  command
      ->add_option("--warm-start", a->options.imitation,
                   "Steps that first imitate the best action of the step before; 0: none")
      ->check(number_in(0, 1e6))
      ->capture_default_str();
  command->add_option("--look-every", a->options.look_every, "Updates between looks at validation")
      ->check(number_in(1, 1e6))
      ->capture_default_str();
  command->add_option("--patience", a->options.patience, "End after so many looks without a better")
      ->check(number_in(1, 1e6))
      ->capture_default_str();
  add_learning_options(*command, *a);
  add_stream_options(*command, *a);
  command->add_flag("--resume", a->resume, "Go on from FILE.state, with the same options");
  command->callback([a, &context] {
    context.run = [a, &context] {
      using enum Baseline;
      a->options.reinforce.baseline =
          a->baseline == "rloo" ? kLeaveOneOut : (a->baseline == "value" ? kValue : kNone);
      const Console console(context.json);
      const auto done = TrainCommand(*a, console).run();
      if (!done) return console.fail(done.error());
      console.result(done.value());
      return 0;
    };
  });
}

}  // namespace memslot::rl_program
