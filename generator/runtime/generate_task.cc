// `generate`: writes on from a prompt, step by step.
#include <algorithm>  // min
#include <chrono>
#include <optional>

#include "generator/runtime/session_run.h"
#include "generator/runtime/stop_matcher.h"
#include "generator/runtime/task_events.h"
#include "generator/runtime/tasks.h"
#include "generator/runtime/trace_recorder.h"
#include "generator/runtime/write_back.h"
#include "shared/base/log.h"

namespace memslot {
namespace {

using nlohmann::json;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

json outcome_json(const WriteBack::Outcome& stored) {
  json out = {{"from", stored.from}};
  if (stored.stored) {
    out["write_back"] = stored.memory;
    out["write_back_conflict"] = stored.conflict;
  }
  if (stored.pending) out["write_back_pending"] = true;
  if (!stored.error.empty()) out["write_back_error"] = stored.error;
  return out;
}

// What was written so far, as text; ends at a control token or a stop string.
class TextOut {
 public:
  TextOut(const Tokenizer& tokenizer, StopMatcher stops)
      : tokenizer_(tokenizer), decoder_(tokenizer), stops_(std::move(stops)) {}

  // False when the generation ends with this token.
  bool push(std::int32_t id) {
    if (tokenizer_.is_control(id) || id == tokenizer_.eos()) {
      finish_ = "eos";
      return false;
    }
    auto piece = decoder_.push(id);
    MEMSLOT_CHECK(piece.has_value());  // sampled ids are inside the vocabulary
    fresh_ += stops_.push(piece.value());
    if (stops_.stopped()) finish_ = "stop";
    return !stops_.stopped();
  }
  void end(bool context_full) {
    if (context_full && finish_ == "length") finish_ = "context";
    if (!stops_.stopped()) fresh_ += stops_.push(decoder_.finish());
    fresh_ += stops_.finish();
  }
  // The text that came since the last call.
  std::string take() {
    std::string out = std::exchange(fresh_, {});
    text_ += out;
    return out;
  }
  const std::string& text() const { return text_; }
  const std::string& finish() const { return finish_; }

 private:
  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
  StopMatcher stops_;
  std::string fresh_, text_, finish_ = "length";
};

// [[[id, nats], ...], ...]: of each token the likeliest, best first.
json top_of(const StepOutput& output) {
  json out = json::array();
  for (const TokenFigures& token : output.tokens) {
    json& one = out.emplace_back(json::array());
    for (const auto& [id, log_prob] : token.top) one.push_back({id, log_prob});
  }
  return out;
}

class Generate {
 public:
  // `asked`: the arguments as they came.
  Generate(const TaskContext& context, GenerateArguments arguments, json asked, TextOut text)
      : context_(context),
        arguments_(std::move(arguments)),
        asked_(std::move(asked)),
        text_(std::move(text)) {}

  Result<std::string> run();

 private:
  Result<std::string> attempt();
  Status open();
  void begin_trace();
  void end_trace(const Result<std::string>& done);
  Status start();
  Status write();
  Status apply_schedule();
  Status write_back();
  int step_size() const;
  std::string done(const std::vector<WriteBack::Outcome>& stored);

  const TaskContext& context_;
  const GenerateArguments arguments_;
  const json asked_;
  TextOut text_;
  std::unique_ptr<SessionRun> run_;
  std::unique_ptr<TraceRecorder> recorder_;  // null: not recorded
  std::unique_ptr<WriteBacks> write_backs_;
  std::size_t prompt_tokens_ = 0;
  std::uint64_t step_ = 0;
  double prefill_seconds_ = 0, decode_seconds_ = 0;
};

int Generate::step_size() const {
  const auto written = static_cast<int>(run_->session().tokens().size() - prompt_tokens_);
  return std::min(arguments_.session.step_tokens, arguments_.max_tokens - written);
}

Status Generate::open() {
  MEMSLOT_TRY(std::vector<std::int32_t> ids, ids_of(context_.engine.tokenizer, arguments_.prompt));
  prompt_tokens_ = ids.size();
  if (static_cast<std::int64_t>(ids.size()) >= context_.engine.gpt.config().context) {
    return invalid("prompt",
                   "fewer than " + std::to_string(context_.engine.gpt.config().context) + " tokens",
                   std::to_string(ids.size()) + " tokens");
  }
  RunOptions options;
  options.session = arguments_.session;
  options.select = arguments_.select;
  options.deadline = arguments_.deadline;
  options.explore = arguments_.explore;
  options.sampled = true;
  options.needs_controller = !arguments_.schedule.empty();
  options.settings.sampling = arguments_.sampling;
  options.settings.digest_logits = true;
  options.settings.top_logits = arguments_.top_log_probs;
  options.sampling = json{{"temperature", arguments_.sampling.temperature},
                          {"top_k", arguments_.sampling.top_k},
                          {"top_p", arguments_.sampling.top_p},
                          {"seed", arguments_.sampling.seed}}
                         .dump();
  MEMSLOT_TRY(run_, SessionRun::open(context_.engine, std::move(ids), std::move(options),
                                     [this](Session& session) {
                                       return session.write(step_size(), [this](std::int32_t id) {
                                         return text_.push(id) && !context_.stop.stop_requested();
                                       });
                                     }));
  return ok();
}

void Generate::begin_trace() {
  if (!arguments_.trace) return;
  const SessionArguments& session = arguments_.session;
  json request = asked_;
  request.erase("prompt");
  request.erase("ids");
  request["kind"] = "generate";
  request["kv"] = kv_mode_name(session.kv);
  request["select"] = arguments_.select == wire::SelectMode::kAsync ? "async" : "sync";
  request["slot"] = session.slot;
  request["step_tokens"] = session.step_tokens;
  request["max_tokens"] = arguments_.max_tokens;
  request["temperature"] = arguments_.sampling.temperature;
  request["top_k"] = arguments_.sampling.top_k;
  request["top_p"] = arguments_.sampling.top_p;
  request["seed"] = arguments_.sampling.seed;
  request["stop"] = arguments_.stop;
  recorder_ = memslot::begin_trace(context_.engine, *run_, session, trace::Origin::kWritten,
                                   run_->session().tokens(), dump(request));
}

void Generate::end_trace(const Result<std::string>& done) {
  if (recorder_ == nullptr) return;
  recorder_->end({.finish = done ? text_.finish() : std::string(),
                  .error = done ? std::string() : done.error().message,
                  .missed = run_->steps().missed(),
                  .load_failures = run_->steps().load_failures(),
                  .prefill_seconds = prefill_seconds_,
                  .decode_seconds = decode_seconds_});
}

Status Generate::start() {
  json event = {{"type", "start"},
                {"prompt_tokens", prompt_tokens_},
                {"policy", ""},
                {"generator", context_.engine.link.incarnation()}};
  if (const Selector* selector = run_->selector()) {
    event["session"] = selector->session();
    event["policy"] = selector->policy();
  }
  if (recorder_ != nullptr) event["trace"] = recorder_->id();
  context_.emit(dump(event));
  const auto began = std::chrono::steady_clock::now();
  MEMSLOT_TRY(run_->prefill(context_.stop));
  prefill_seconds_ = seconds_since(began);
  return ok();
}

Status Generate::apply_schedule() {
  if (!run_->swap_due(arguments_.schedule, step_)) return ok();
  MEMSLOT_TRY(write_back());  // what is swapped out takes its state home
  return run_->swap_as(arguments_.schedule, step_);
}

Status Generate::write_back() {
  const MemoryVersion* origin = run_->named_version();
  if (!arguments_.write_back || origin == nullptr || !run_->dirty()) return ok();
  if (write_backs_ == nullptr) {
    write_backs_ =
        std::make_unique<WriteBacks>(context_.engine.outbox, run_->selector()->opening());
  }
  MEMSLOT_TRY(const MemoryPayload state, run_->snapshot());
  return write_backs_->write(*origin, step_, static_cast<std::uint64_t>(run_->session().cached()),
                             state);
}

Status Generate::write() {
  const auto began = std::chrono::steady_clock::now();
  StepEnd end = StepEnd::kMore;
  while (end == StepEnd::kMore && step_size() > 0) {
    if (context_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "cancelled"};
    MEMSLOT_TRY(apply_schedule());
    MEMSLOT_TRY(const StepReport report, run_->steps().run_one());
    ++step_;
    end = report.output.end;
    if (end == StepEnd::kEnded || step_size() == 0) {
      text_.end(/*context_full=*/run_->session().room() == 0 && step_size() > 0);
    }
    json event = step_event(report, arguments_.session.slot);
    std::string text = text_.take();
    event["text"] = text;
    if (arguments_.top_log_probs > 0) event["top_log_probs"] = top_of(report.output);
    if (recorder_ != nullptr) recorder_->step(report, run_->session(), std::move(text));
    context_.emit(dump(event));
    const int every = arguments_.write_back_every;
    if (every > 0 && step_ % static_cast<std::uint64_t>(every) == 0) {
      MEMSLOT_TRY(write_back());
    }
  }
  decode_seconds_ = seconds_since(began);
  if (context_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "cancelled"};
  return ok();
}

std::string Generate::done(const std::vector<WriteBack::Outcome>& stored) {
  const auto& tokens = run_->session().tokens();
  json event = {
      {"type", "done"},
      {"text", text_.text()},
      {"tokens", std::vector<std::int32_t>(
                     tokens.begin() + static_cast<std::ptrdiff_t>(prompt_tokens_), tokens.end())},
      {"prompt_tokens", prompt_tokens_},
      {"finish", text_.finish()},
      {"logits_xxh3", run_->session().logits_xxh3().hex()},
      {"decode_seconds", decode_seconds_},
      {"prefill_seconds", prefill_seconds_}};
  if (!stored.empty()) {
    json latest = outcome_json(stored.back());
    latest.erase("from");
    event.update(latest);
  }
  if (stored.size() > 1) {
    json& all = event["write_backs"] = json::array();
    for (const WriteBack::Outcome& one : stored) all.push_back(outcome_json(one));
  }
  if (recorder_ != nullptr) event["trace"] = recorder_->id();
  if (run_->steps().missed() > 0) event["missed_deadlines"] = run_->steps().missed();
  if (run_->steps().load_failures() > 0) event["load_failures"] = run_->steps().load_failures();
  return dump(event);
}

Result<std::string> Generate::run() {
  MEMSLOT_TRY(const Scheduler::Place place, context_.engine.scheduler.admit(context_.stop));
  MEMSLOT_TRY(open());
  begin_trace();
  auto done = attempt();
  end_trace(done);
  return done;
}

Result<std::string> Generate::attempt() {
  MEMSLOT_TRY(start());
  MEMSLOT_TRY(write());
  std::vector<WriteBack::Outcome> stored;
  const Status sent = write_back();
  if (write_backs_ != nullptr) {
    stored = write_backs_->wait(deadline_in(context_.engine.clock, std::chrono::seconds(10)));
  }
  if (!sent) {
    if (stored.empty()) stored.emplace_back();
    stored.back().error = sent.error().message;
  }
  for (const WriteBack::Outcome& one : stored) {
    if (recorder_ == nullptr) break;
    recorder_->add(trace::WriteBack{step_, one.from, one.memory, one.conflict, one.error});
  }
  static_cast<void>(run_->close());
  return done(stored);
}

}  // namespace

Result<std::string> generate_task(const TaskContext& context, std::string_view arguments) {
  MEMSLOT_TRY(GenerateArguments parsed, generate_arguments(arguments));
  if (context.engine.tokenizer == nullptr) {
    return Error{ErrorCode::kNotFound, "tokenizer: expected one in the model file, found none"};
  }
  MEMSLOT_TRY(StopMatcher stops, StopMatcher::make(parsed.stop));
  json asked = arguments.empty() ? json::object() : json::parse(arguments);
  Generate generate(context, std::move(parsed), std::move(asked),
                    TextOut(*context.engine.tokenizer, std::move(stops)));
  return generate.run();
}

}  // namespace memslot
