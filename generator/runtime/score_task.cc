// `score`: the log-probability of every token of a given text, with any memory.
#include <optional>

#include "generator/runtime/session_run.h"
#include "generator/runtime/task_events.h"
#include "generator/runtime/tasks.h"
#include "generator/runtime/trace_recorder.h"

namespace memslot {
namespace {

using nlohmann::json;

constexpr std::size_t kUnscoredForRecall = 16;  // first tokens of a text, left out of `recall`
constexpr int kPiece = 64;                      // tokens at once where no step matters

class Score {
 public:
  // `asked`: the arguments as they came.
  Score(const TaskContext& context, ScoreArguments arguments, json asked)
      : context_(context), arguments_(std::move(arguments)), asked_(std::move(asked)) {}
  Result<std::string> run();

 private:
  bool advised() const { return arguments_.session.memory.kind == MemoryChoice::Kind::kAuto; }
  // Whether steps matter: each is reported, with its gain.
  bool stepwise() const { return advised() || !arguments_.schedule.empty(); }
  std::string text_of(const StepReport& report) const;
  json token_json(const TokenFigures& token) const;
  std::string scores() const;
  void begin_trace();
  Status read();

  const TaskContext& context_;
  const ScoreArguments arguments_;
  const json asked_;
  std::unique_ptr<SessionRun> run_;
  std::unique_ptr<TraceRecorder> recorder_;  // null: not recorded
  std::vector<TokenFigures> figures_;
  json gains_ = json::array();  // of the steps, where they matter
  wire::ActiveMemory active_;
};

// The step's own stretch of the text; a character cut by its end is replaced when it is written.
std::string Score::text_of(const StepReport& report) const {
  if (context_.engine.tokenizer == nullptr) return "";
  std::vector<std::int32_t> ids;
  for (const TokenFigures& token : report.output.tokens) ids.push_back(token.token);
  auto text = context_.engine.tokenizer->decode(ids);
  return text ? std::move(text).value() : std::string();
}

json Score::token_json(const TokenFigures& token) const {
  json out = {{"id", token.token}, {"logprob", token.log_prob}, {"rank1", token.is_argmax}};
  if (context_.engine.tokenizer != nullptr) {
    auto text = context_.engine.tokenizer->decode({&token.token, 1});
    if (text) out["text"] = std::move(text).value();
  }
  if (!token.top.empty()) {
    json& top = out["top"] = json::array();
    for (const auto& [id, logit] : token.top) top.push_back({id, logit});
  }
  return out;
}

std::string Score::scores() const {
  json tokens = json::array();
  double nll = 0;
  std::size_t hits = 0, counted = 0;
  for (std::size_t i = 0; i < figures_.size(); ++i) {
    nll -= static_cast<double>(figures_[i].log_prob);
    if (i + 1 >= kUnscoredForRecall) {  // figures_[0] is the text's second token
      ++counted;
      if (figures_[i].is_argmax) ++hits;
    }
    tokens.push_back(token_json(figures_[i]));
  }
  const auto mean = [](double sum, std::size_t n) {
    return n == 0 ? 0.0 : sum / static_cast<double>(n);
  };
  json out = {{"type", "scores"},
              {"tokens", std::move(tokens)},
              {"nll", mean(nll, figures_.size())},
              {"recall", counted == 0 ? json() : json(mean(static_cast<double>(hits), counted))},
              {"memory", memory_name(active_.ref)},
              {"logits_xxh3", run_->session().logits_xxh3().hex()}};
  if (stepwise()) out["gains"] = gains_;
  if (recorder_ != nullptr) out["trace"] = recorder_->id();
  return dump(out);
}

// Of a reading whose steps matter. The text's first token is what a prompt is to a generation.
void Score::begin_trace() {
  if (!stepwise() || !arguments_.trace) return;
  json request = asked_;
  request.erase("text");
  request.erase("ids");
  request["kind"] = "score";
  request["kv"] = kv_mode_name(arguments_.session.kv);
  request["step_tokens"] = arguments_.session.step_tokens;
  recorder_ = memslot::begin_trace(context_.engine, *run_, arguments_.session, trace::Origin::kRead,
                                   {run_->session().tokens().front()}, dump(request));
}

Result<std::string> Score::run() {
  MEMSLOT_TRY(std::vector<std::int32_t> ids, ids_of(context_.engine.tokenizer, arguments_.text));
  if (ids.size() < 2) return invalid("text", "at least 2 tokens", std::to_string(ids.size()));
  MEMSLOT_TRY(const Scheduler::Place place, context_.engine.scheduler.admit(context_.stop));
  RunOptions options;
  options.session = arguments_.session;
  options.deadline = arguments_.deadline;
  options.with_base = stepwise();
  options.needs_controller = !arguments_.schedule.empty();
  options.settings.digest_logits = true;
  options.settings.top_logits = arguments_.top_logits;
  const int piece = stepwise() ? arguments_.session.step_tokens : kPiece;
  MEMSLOT_TRY(run_, SessionRun::open(context_.engine, std::move(ids), std::move(options),
                                     [piece](Session& session) { return session.read(piece); }));
  begin_trace();
  const Status done = read();
  if (recorder_ != nullptr) {
    trace::End end{.finish = done ? "read" : "", .error = done ? "" : done.error().message};
    end.missed = run_->steps().missed();
    end.load_failures = run_->steps().load_failures();
    recorder_->end(std::move(end));
  }
  MEMSLOT_TRY(done);
  static_cast<void>(run_->close());
  return scores();
}

Status Score::read() {
  StepEnd end = StepEnd::kMore;
  for (std::uint64_t step = 0; end == StepEnd::kMore; ++step) {
    if (context_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "cancelled"};
    MEMSLOT_TRY(run_->swap_as(arguments_.schedule, step));
    MEMSLOT_TRY(StepReport report, run_->steps().run_one());
    end = report.output.end;
    active_ = report.active[arguments_.session.slot];
    if (stepwise()) {
      json event = step_event(report, arguments_.session.slot);
      std::string text = text_of(report);
      event["text"] = text;
      if (recorder_ != nullptr) recorder_->step(report, run_->session(), std::move(text));
      context_.emit(dump(event));
      gains_.push_back(report.gain ? json(*report.gain) : json());
    }
    for (TokenFigures& token : report.output.tokens) figures_.push_back(std::move(token));
  }
  return ok();
}

}  // namespace

Result<std::string> score_task(const TaskContext& context, std::string_view arguments) {
  MEMSLOT_TRY(ScoreArguments parsed, score_arguments(arguments));
  json asked = arguments.empty() ? json::object() : json::parse(arguments);
  return Score(context, std::move(parsed), std::move(asked)).run();
}

}  // namespace memslot
