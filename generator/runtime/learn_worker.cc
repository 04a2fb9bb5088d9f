#include "generator/runtime/learn_worker.h"

#include <malloc.h>  // malloc_trim

#include <algorithm>  // find_if
#include <optional>
#include <set>
#include <utility>

#include "generator/runtime/selector.h"
#include "generator/runtime/slot_infos.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"
#include "shared/memory/layout/lora.h"

namespace memslot {
namespace {

constexpr std::chrono::seconds kIdle{10};  // without a job, then the workspace is given back

Error stopped() { return {ErrorCode::kCancelled, "cancelled"}; }

// True if `head` is of the shape that is asked for: kind, layer, and of a lora its rank and alpha.
bool can_go_on(const MemoryPayload& head, const LearnConfig& asked, int first_layer) {
  const int layer = asked.layer < 0 ? first_layer : asked.layer;
  if (head.kind() != asked.kind || head.signature().layer != layer) return false;
  if (head.kind() != MemoryKind::kLora) return true;
  const auto lora = LoraView::parse(head);
  return lora && lora.value().rank == asked.rank && lora.value().alpha == double{asked.alpha};
}

MemoryVersion version_of(const wire::AssignLearn& job, const LearnOutcome& outcome) {
  MemoryVersion v;
  v.ref = {job.target.ns, job.target.id, 0};
  v.token = job.job + ":" + std::to_string(job.lease);
  v.parent = job.expected;
  v.signature = outcome.payload.signature();
  v.dtype = outcome.payload.dtype();
  v.source = job.source;
  v.origin = VersionOrigin::kLearned;
  v.origin_id = v.token;
  v.created_unix_ms = SystemClock().unix_ms();
  v.payload_bytes = outcome.payload.bytes().size();
  v.sha256 = sha256(outcome.payload.bytes());
  v.keys = outcome.keys.rows();
  v.stats = outcome.stats;
  if (is_stateful(v.signature.kind)) {
    const auto position = outcome.payload.scalar("position");
    if (position) v.position = static_cast<std::uint64_t>(position.value());
  }
  return v;
}

SharedBytes shared(std::span<const std::byte> bytes) {
  return share_bytes({bytes.begin(), bytes.end()});
}

}  // namespace

// Results in the outbox that the controller has not answered, and what became of the others.
struct LearnWorker::Deliveries {
  std::mutex mutex;                                         // taken after mutex_
  std::set<std::pair<std::string, std::uint64_t>> waiting;  // (job, lease)
  std::uint64_t learned = 0, failed = 0, fenced = 0;

  void add(const wire::AssignLearn& job) {
    const std::lock_guard lock(mutex);
    waiting.insert({job.job, job.lease});
  }
  void drop(const wire::AssignLearn& job) {
    const std::lock_guard lock(mutex);
    waiting.erase({job.job, job.lease});
  }
  bool contains(const wire::AssignLearn& job) {
    const std::lock_guard lock(mutex);
    return waiting.contains({job.job, job.lease});
  }
};

LearnWorker::LearnWorker(Engine& engine, std::unique_ptr<Learner> learner, OuterParameters& outer)
    : engine_(engine), learner_(std::move(learner)), deliveries_(std::make_shared<Deliveries>()) {
  if (learner_ != nullptr) through_.emplace(engine, outer, learner_->texts(), learner_->gate());
}

LearnWorker::~LearnWorker() { stop(); }

void LearnWorker::start() {
  thread_ = std::thread([this] { loop(); });
  pulse_ = std::thread([this] { pulse(); });
}

void LearnWorker::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    cancelled_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (pulse_.joinable()) pulse_.join();
}

void LearnWorker::assign(wire::AssignLearn job) {
  {
    const std::lock_guard lock(mutex_);
    if (deliveries_->contains(job)) return;  // learned already
    if (running_.job == job.job && !cancelled_) {
      if (job.lease <= running_.lease) return;
      if (job.expected == running_expected_) {
        running_.lease = job.lease;
        return;
      }
      cancelled_ = true;  // the head moved: what is learned now is of an older one
    }
    const auto waiting = std::find_if(queue_.begin(), queue_.end(),
                                      [&](const auto& other) { return other.job == job.job; });
    if (waiting != queue_.end()) {
      if (job.lease > waiting->lease) *waiting = std::move(job);
      return;
    }
    if (queue_.size() < kMaxQueued) {
      queue_.push_back(std::move(job));
      changed_.notify_all();
      return;
    }
  }
  send(job,
       Error{ErrorCode::kOverloaded, "learn jobs: expected at most " + std::to_string(kMaxQueued) +
                                         " waiting, found one more"});
}

void LearnWorker::cancel(const wire::CancelLearn& job) {
  std::optional<wire::AssignLearn> waiting;
  {
    const std::lock_guard lock(mutex_);
    // Of an older lease: it came late, and the newer one goes on.
    if (running_.job == job.job && job.lease >= running_.lease) cancelled_ = true;
    const auto found = std::find_if(queue_.begin(), queue_.end(), [&](const auto& other) {
      return other.job == job.job && job.lease >= other.lease;
    });
    if (found != queue_.end()) {
      waiting = std::move(*found);
      queue_.erase(found);
    }
  }
  if (waiting) send(*waiting, stopped());
}

LearnWorker::Counters LearnWorker::counters() const {
  const std::lock_guard lock(mutex_);
  Counters out;
  out.queued = queue_.size() + (running_.job.empty() ? 0 : 1);
  out.workspace_bytes = workspace_bytes_;
  const std::lock_guard answered(deliveries_->mutex);
  out.learned = deliveries_->learned;
  out.failed = deliveries_->failed;
  out.fenced = deliveries_->fenced;
  return out;
}

void LearnWorker::loop() {
  const auto due = [this] { return stopping_ || !queue_.empty(); };
  for (bool holds_workspace = false;;) {
    wire::AssignLearn job;
    {
      std::unique_lock lock(mutex_);
      if (holds_workspace && !changed_.wait_for(lock, kIdle, due)) {
        holds_workspace = false;
        lock.unlock();
        release_workspace();
        continue;
      }
      changed_.wait(lock, due);
      if (stopping_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
      running_ = {};
      running_.job = job.job;
      running_.lease = job.lease;
      running_.phase = "reading";
      running_expected_ = job.expected;
      cancelled_ = false;
    }
    changed_.notify_all();
    work(job);
    holds_workspace = true;
  }
}

void LearnWorker::release_workspace() {
  if (learner_ == nullptr) return;
  const std::lock_guard one_at_a_time(learner_mutex_);
  learner_->release_workspace();
  ::malloc_trim(0);  // what the allocator keeps would still count as ours
  const std::lock_guard lock(mutex_);
  workspace_bytes_ = 0;
}

// Tells the controller once a second how far the jobs are, so that their leases live on.
void LearnWorker::pulse() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    std::vector<wire::LearnProgress> news;
    if (!running_.job.empty()) news.push_back(running_);
    const auto add = [&](const std::string& job, std::uint64_t lease, const char* phase) {
      news.emplace_back();
      news.back().job = job;
      news.back().lease = lease;
      news.back().phase = phase;
    };
    for (const wire::AssignLearn& job : queue_) add(job.job, job.lease, "queued");
    {
      const std::lock_guard answered(deliveries_->mutex);
      for (const auto& [job, lease] : deliveries_->waiting) add(job, lease, "delivering");
    }
    lock.unlock();
    for (wire::LearnProgress& progress : news) {
      const Status posted = engine_.link.post({0, std::move(progress), {}});
      if (!posted) log::debug("learn progress: {}", posted.error().message);
    }
    lock.lock();
    changed_.wait_for(lock, std::chrono::milliseconds(news.empty() ? 1000 : 500));
  }
}

bool LearnWorker::report(const LearnProgressReport& progress) {
  if (progress.phase == std::string_view("training")) {
    const TimePoint now = engine_.clock.now();
    if (progress.step > 1) times_.step.observe(now - last_step_);
    last_step_ = now;
  }
  const std::lock_guard lock(mutex_);
  running_.step = static_cast<std::uint32_t>(progress.step);
  running_.steps = static_cast<std::uint32_t>(progress.max_steps);
  running_.loss = progress.loss;
  running_.recall = progress.recall;
  running_.phase = progress.phase;
  return !cancelled_;
}

void LearnWorker::work(const wire::AssignLearn& job) {
  log::info("learn job {}: {} bytes of {} into {}", job.job, job.text.size(), job.source,
            job.target.text());
  const TimePoint began = engine_.clock.now();
  auto outcome = learn(job);
  (outcome ? times_.learned : times_.failed).observe(engine_.clock.now() - began);
  wire::AssignLearn done = job;
  {
    const std::lock_guard lock(mutex_);
    done.lease = running_.lease;
    if (!stopping_) deliveries_->add(done);  // before it runs no more: never learned twice
    running_ = {};
    if (stopping_) return;  // the controller gives it to somebody after the lease
  }
  send(done, std::move(outcome));
}

Result<LearnOutcome> LearnWorker::learn(const wire::AssignLearn& job) {
  if (learner_ == nullptr) {
    return Error{ErrorCode::kNotFound, "tokenizer: expected one in the model file, found none"};
  }
  MEMSLOT_TRY(const LearnConfig config, learn_config_from_json(job.config));
  if (config.kind != MemoryKind::kDelta) return train(job, config);
  const std::lock_guard one_at_a_time(learner_mutex_);
  return through_->learn(job, config.layer,
                         [this](const LearnProgressReport& p) { return report(p); });
}

Result<LearnOutcome> LearnWorker::train(const wire::AssignLearn& job, const LearnConfig& config) {
  LearnRequest request;
  request.config = config;
  request.text = job.text;
  request.model_digest = engine_.model_digest;
  std::optional<MemoryPayload> start;
  if (!job.expected.empty()) {
    wire::OpenSession open;
    open.session = random_nonce();
    open.incarnation = engine_.link.incarnation();
    open.model = engine_.model_digest;
    open.slots = slot_infos(engine_.gpt);
    open.namespaces = {job.target.ns};
    open.policy = "base";
    open.sampling = "{}";
    Selector selector(engine_.link, engine_.loader.residents(), engine_.clock, std::move(open));
    const TimePoint deadline = deadline_in(engine_.clock, std::chrono::seconds(10));
    MEMSLOT_TRY(selector.open(deadline));
    // What another model learned is not handed out (kMismatch), and what is of another shape than
    // asked for cannot go on: both are begun anew, the version before stays in the bank.
    const auto head = selector.fetch({job.target.ns, job.target.id, 0}, deadline);
    if (!head && head.error().code != ErrorCode::kMismatch) return head.error();
    if (head && head.value().version.signature.model == engine_.model_digest) {
      MEMSLOT_TRY(start, MemoryPayload::parse(*head.value().payload));
      const int first_layer = engine_.gpt.options().slot_layers.front();
      if (can_go_on(*start, request.config, first_layer)) request.start = &*start;
    }
  }
  return learn_now(request, [this](const LearnProgressReport& p) { return report(p); });
}

Result<LearnOutcome> LearnWorker::learn_now(
    const LearnRequest& request, const std::function<bool(const LearnProgressReport&)>& progress) {
  if (learner_ == nullptr) {
    return Error{ErrorCode::kNotFound, "tokenizer: expected one in the model file, found none"};
  }
  const std::lock_guard one_at_a_time(learner_mutex_);
  auto outcome = learner_->learn(request, progress);
  // What the job took and gave back, before anybody is told that it ended: who then looks at the
  // process finds what the counters say.
  ::malloc_trim(0);
  const std::lock_guard lock(mutex_);
  workspace_bytes_ = learner_->workspace_bytes();
  return outcome;
}

void LearnWorker::send(const wire::AssignLearn& job, Result<LearnOutcome> outcome) {
  Outgoing item;
  if (outcome) {
    const LearnOutcome& learned = outcome.value();
    item.body = wire::LearnResult{job.job, job.lease, version_of(job, learned)};
    item.parts = {shared(learned.payload.bytes()),
                  shared(std::as_bytes(std::span(learned.keys.values)))};
    log::info("learn job {}: recall {:.3f}, nll {:.3f} -> {:.3f} in {:.1f} s", job.job,
              learned.stats.recall.value_or(0), learned.stats.nll_before, learned.stats.nll_after,
              learned.stats.wall_seconds);
  } else {
    const Error& error = outcome.error();
    log::warn("learn job {}: {}", job.job, error.message);
    item.body = wire::LearnFailed{job.job, job.lease, error.code, error.message};
  }
  const bool learned = outcome.has_value();
  const std::pair of(job.job, job.lease);
  item.done = [deliveries = deliveries_, learned, job = of](Result<wire::Message> reply) {
    const auto* ack = reply ? std::get_if<wire::LearnAck>(&reply.value().body) : nullptr;
    const bool accepted = ack != nullptr && ack->accepted;
    if (!accepted) {
      log::warn("learn job {}: not accepted: {}", job.first,
                ack != nullptr ? ack->message
                : reply        ? "not a LearnAck"
                               : reply.error().message);
    }
    const std::lock_guard lock(deliveries->mutex);
    deliveries->waiting.erase(job);
    ++(!accepted ? deliveries->fenced : learned ? deliveries->learned : deliveries->failed);
  };
  deliveries_->add(job);
  changed_.notify_all();
  const Status added = engine_.outbox.add(std::move(item));
  if (added) return;
  log::warn("learn job {}: result dropped: {}", job.job, added.error().message);
  deliveries_->drop(job);
}

}  // namespace memslot
