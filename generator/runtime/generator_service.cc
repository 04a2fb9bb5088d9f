#include "generator/runtime/generator_service.h"

#include <algorithm>  // min, max
#include <nlohmann/json.hpp>

#include "generator/backend/open_backend.h"
#include "generator/backend/thread_team.h"
#include "generator/runtime/bench_task.h"
#include "generator/runtime/generator_metrics.h"
#include "generator/runtime/learn_texts.h"
#include "generator/runtime/learn_worker.h"
#include "generator/runtime/slot_infos.h"
#include "generator/runtime/task_arguments.h"
#include "generator/runtime/task_events.h"
#include "generator/runtime/task_service.h"
#include "generator/runtime/tasks.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"
#include "shared/base/version.h"

namespace memslot {
namespace {

using nlohmann::json;

Result<DType> weights_dtype(const std::string& name, const BackendInfo& backend) {
  if (name != "bf16" && name != "f32") return invalid("weights", "bf16 or f32", name);
  if (name == "f32") return DType::kF32;
  if (backend.bf16) return DType::kBF16;
  log::warn("weights: bf16 was asked for, but {} ({}) has none: f32 is used", backend.library,
            backend.isa);
  return DType::kF32;
}

}  // namespace

int default_slot_layer(int layers) { return std::max(0, std::min(layers * 3 / 4, layers - 2)); }

// Declared in the order in which things depend on each other; destroyed the other way round.
struct GeneratorService::Impl {
  GeneratorOptions options;
  const Clock& clock;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<ModelFile> file;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Gpt> gpt;
  Sha256 model_digest, base_digest;
  LearnTexts texts;
  std::string prose;
  std::unique_ptr<LogitsScratch> scratch;
  ResidentSet residents;
  ComputeGate gate;
  SessionProbe probe;
  std::unique_ptr<MemoryLoader> loader;
  std::unique_ptr<Scheduler> scheduler;
  // From start() on.
  std::unique_ptr<ControllerLink> link;
  std::unique_ptr<Outbox> outbox;
  std::unique_ptr<OuterParameters> outer;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<LearnWorker> learner;
  std::unique_ptr<TaskService> tasks;
  bool running = false;

  Impl(GeneratorOptions o, const Clock& c)
      : options(std::move(o)), clock(c), residents(options.resident_bytes), gate(c) {}

  Status load();
  Status load_tokenizer();
  void make_link(std::unique_ptr<Channel> channel);
  TaskService::Handlers handlers();
  void take(wire::Message message);
  GeneratorFigures figures() const;
  Result<std::string> status() const;
};

Status GeneratorService::Impl::load_tokenizer() {
  auto made = Tokenizer::make(file->tokenizer());
  if (made) {
    tokenizer = std::make_unique<Tokenizer>(std::move(made).value());
  } else if (made.error().code == ErrorCode::kNotFound) {
    log::warn("the model brings no tokenizer: only token ids can be read, nothing can be learned");
  } else {
    return made.error();
  }
  return ok();
}

Status GeneratorService::Impl::load() {
  BackendOptions backend_options;
  backend_options.threads = options.threads;
  MEMSLOT_TRY(backend, open_backend(backend_options));
  MEMSLOT_TRY(ModelFile opened, ModelFile::open(options.model));
  file = std::make_unique<ModelFile>(std::move(opened));
  MEMSLOT_TRY(load_tokenizer());
  GptOptions gpt_options;
  MEMSLOT_TRY(gpt_options.weights, weights_dtype(options.weights, backend->info()));
  gpt_options.slot_layers = options.slot_layers;
  if (gpt_options.slot_layers.empty()) {
    gpt_options.slot_layers = {default_slot_layer(file->config().layers)};
  }
  MEMSLOT_TRY(gpt, Gpt::load(*file, *backend, std::move(gpt_options)));
  MEMSLOT_TRY(model_digest, file->digest());
  MEMSLOT_TRY(base_digest, gpt->attest());
  MEMSLOT_TRY(texts, read_learn_texts(options.anchor_directory, options.control_file));
  for (const std::string& text : texts.anchor) prose += (prose.empty() ? "" : "\n\n") + text;
  MEMSLOT_TRY(LogitsScratch made, LogitsScratch::make(*gpt));
  scratch = std::make_unique<LogitsScratch>(std::move(made));
  loader = std::make_unique<MemoryLoader>(*gpt, model_digest, residents);
  scheduler = std::make_unique<Scheduler>(
      gate, Scheduler::Limits{options.max_sessions, options.max_waiting});
  return ok();
}

void GeneratorService::Impl::make_link(std::unique_ptr<Channel> channel) {
  wire::Hello hello;
  hello.role = wire::PeerRole::kGenerator;
  hello.incarnation = random_nonce();
  hello.build = std::string(build_version());
  hello.model = model_digest;
  hello.model_name = gpt->config().name;
  hello.slots = slot_infos(*gpt);
  hello.learn_workers = tokenizer == nullptr ? 0 : 1;
  link =
      std::make_unique<ControllerLink>(std::move(channel), std::move(hello),
                                       [this](wire::Message message) { take(std::move(message)); });
  outbox = std::make_unique<Outbox>(*link, clock, options.outbox_bytes);
  outer = std::make_unique<OuterParameters>(*gpt, model_digest, *link, clock, options.outer_seed);
  loader->set_outer_source(
      [this](std::size_t slot, MemoryKind kind) { return outer->get(slot, kind); });
  engine =
      std::make_unique<Engine>(Engine{*gpt, tokenizer.get(), model_digest, base_digest, *scratch,
                                      *loader, *scheduler, *link, *outbox, probe, clock});
  std::unique_ptr<Learner> learn;
  if (tokenizer != nullptr) learn = std::make_unique<Learner>(*gpt, *file, *tokenizer, texts, gate);
  learner = std::make_unique<LearnWorker>(*engine, std::move(learn), *outer);
  tasks = std::make_unique<TaskService>(
      *engine, handlers(), static_cast<std::size_t>(options.max_sessions + options.max_waiting));
}

TaskService::Handlers GeneratorService::Impl::handlers() {
  return {{"generate", generate_task},
          {"replay", replay_task},
          {"score", score_task},
          {"tokenize", tokenize_task},
          {"attest", attest_task},
          {"gains",
           [this](const TaskContext& context, const std::string& arguments) {
             return gains_task(context, arguments, gate);
           }},
          {"status",
           [this](const TaskContext&, const std::string& arguments) -> Result<std::string> {
             MEMSLOT_TRY(no_arguments(arguments));
             return status();
           }},
          {"bench", [this](const TaskContext& context, const std::string& arguments) {
             return bench_task(context, arguments, *learner, prose);
           }}};
}

void GeneratorService::Impl::take(wire::Message message) {
  if (auto* task = std::get_if<wire::AssignTask>(&message.body)) {
    tasks->assign(message.request, std::move(*task));
  } else if (const auto* cancelled = std::get_if<wire::CancelTask>(&message.body)) {
    tasks->cancel(cancelled->task);
  } else if (auto* job = std::get_if<wire::AssignLearn>(&message.body)) {
    learner->assign(std::move(*job));
  } else if (const auto* lease = std::get_if<wire::CancelLearn>(&message.body)) {
    learner->cancel(*lease);
  } else {
    log::warn("link: dropped a message that a generator does not take");
  }
}

GeneratorFigures GeneratorService::Impl::figures() const {
  GeneratorFigures out;
  const MemoryReport report = gpt->memory();
  out.learning = learner->counters();
  out.memory = {report.weight_bytes, report.scratch_bytes + scratch->bytes(),
                scratch->kv_bytes().load(), residents.bytes(), out.learning.workspace_bytes};
  out.residents = {residents.size(), residents.budget(), residents.evictions()};
  out.scheduler = scheduler->counters();
  out.tasks = tasks->counters();
  out.loads = loader->counters();
  out.outbox = outbox->counters();
  out.rpc = link->stats();
  out.channel = link->channel_stats();
  out.connected = link->connected();
  return out;
}

Result<std::string> GeneratorService::Impl::status() const {
  const GeneratorFigures f = figures();
  const BackendInfo& info = backend->info();
  return dump(json{
      {"type", "status"},
      {"generator", link->incarnation()},
      {"build", std::string(build_version())},
      {"model", gpt->config().name},
      {"model_digest", model_digest.hex()},
      {"weights", std::string(dtype_name(gpt->options().weights))},
      {"slots", gpt->options().slot_layers},
      {"context", gpt->config().context},
      {"backend",
       {{"name", info.name},
        {"isa", info.isa},
        {"library", info.library},
        {"threads", info.threads},
        {"row_invariant", info.row_invariant}}},
      {"memory",
       {{"weights", f.memory.weights},
        {"scratch", f.memory.scratch},
        {"kv", f.memory.kv},
        {"resident", f.memory.resident},
        {"resident_budget", f.residents.budget},
        {"learning_workspace", f.memory.learning_workspace},
        {"rss", metrics::resident_set_bytes()}}},
      {"residents", f.residents.memories},
      {"loads", {{"done", f.loads.loads}, {"failed", f.loads.failures}, {"bytes", f.loads.bytes}}},
      {"sessions",
       {{"running", f.scheduler.sessions},
        {"waiting", f.scheduler.waiting},
        {"refused", f.scheduler.refused}}},
      {"tasks",
       {{"running", f.tasks.running},
        {"done", f.tasks.done},
        {"failed", f.tasks.failed},
        {"refused", f.tasks.refused}}},
      {"learning",
       {{"queued", f.learning.queued},
        {"learned", f.learning.learned},
        {"failed", f.learning.failed},
        {"fenced", f.learning.fenced}}},
      {"outbox",
       {{"waiting", f.outbox.waiting},
        {"bytes", f.outbox.bytes},
        {"acknowledged", f.outbox.acknowledged},
        {"refused", f.outbox.refused},
        {"retries", f.outbox.retries}}},
      {"link",
       {{"lost", f.rpc.lost},
        {"late", f.rpc.late},
        {"resent", f.rpc.resent},
        {"malformed", f.rpc.malformed}}}});
}

GeneratorService::GeneratorService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GeneratorService::~GeneratorService() { stop(); }

Result<std::unique_ptr<GeneratorService>> GeneratorService::open(GeneratorOptions options,
                                                                 const Clock& clock) {
  auto impl = std::make_unique<Impl>(std::move(options), clock);
  const Status loaded = impl->load();
  release_thread_team();  // the main thread computes no more
  if (!loaded) return loaded.error();
  return std::unique_ptr<GeneratorService>(new GeneratorService(std::move(impl)));
}

void GeneratorService::start(std::unique_ptr<Channel> channel) {
  impl_->make_link(std::move(channel));
  impl_->scheduler->start();
  impl_->outbox->start();
  impl_->learner->start();
  impl_->link->start();
  impl_->running = true;
}

void GeneratorService::stop() {
  if (!impl_->running) return;
  impl_->running = false;
  impl_->tasks->stop();
  impl_->learner->stop();
  if (!impl_->outbox->flush(deadline_in(impl_->clock, impl_->options.flush))) {
    log::warn("stopping with {} write-backs or results unsent", impl_->outbox->counters().waiting);
  }
  impl_->outbox->stop();
  impl_->scheduler->stop();
  impl_->link->stop();
}

std::string GeneratorService::ready_line() const {
  std::string layers;
  for (const int layer : impl_->gpt->options().slot_layers) {
    layers += (layers.empty() ? "" : ",") + std::to_string(layer);
  }
  return "memslot-generator ready model=" + slug(impl_->gpt->config().name) +
         " weights=" + std::string(dtype_name(impl_->gpt->options().weights)) + " slots=" + layers +
         " row_invariant=" + (impl_->backend->info().row_invariant ? "yes" : "no");
}

std::string GeneratorService::metrics_text() const {
  metrics::Page page;
  impl_->probe.collect(page);
  collect(impl_->figures(), page);
  collect(impl_->learner->times(), page);
  page.process("memslot_generator");
  return page.text();
}

Engine& GeneratorService::engine() { return *impl_->engine; }

}  // namespace memslot
