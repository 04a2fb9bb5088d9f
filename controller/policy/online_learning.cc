#include "controller/policy/online_learning.h"

#include <sys/resource.h>

#include <utility>

#include "shared/base/log.h"

namespace memslot {
namespace {

constexpr auto kBankTime = std::chrono::seconds(10);
constexpr std::size_t kMostUsed = 1000;
constexpr int kNice = 10;  // steps and decoding come first

OnlineCounts sum(const OnlineCounts& a, const OnlineCounts& b) {
  OnlineCounts out = b;  // the means are the newer one's
  out.episodes += a.episodes;
  out.steps += a.steps;
  out.held_out += a.held_out;
  out.refused += a.refused;
  out.updates += a.updates;
  out.snapshots += a.snapshots;
  out.reverts += a.reverts;
  out.set_back += a.set_back;
  out.shifts += a.shifts;
  return out;
}

}  // namespace

OnlineLearning::OnlineLearning(PolicyShelf& shelf, FeedbackDesk& desk, const Clock& clock,
                               OnlineOptions options, std::function<void()> changed)
    : shelf_(shelf), desk_(desk), clock_(clock), options_(options), changed_(std::move(changed)) {}

OnlineLearning::~OnlineLearning() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  more_.notify_all();
  if (thread_.joinable()) thread_.join();
}

TimePoint OnlineLearning::soon() const { return deadline_in(clock_, kBankTime); }

void OnlineLearning::start() {
  thread_ = std::thread([this] { loop(); });
}

bool OnlineLearning::offer(LiveEpisode episode) {
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= kMaxQueued) {
      ++view_.dropped;
      return false;
    }
    queue_.push_back(std::move(episode));
  }
  more_.notify_one();
  return true;
}

LearningView OnlineLearning::view() const {
  const std::lock_guard lock(mutex_);
  LearningView out = view_;
  out.queued = queue_.size();
  return out;
}

std::vector<LearningSample> OnlineLearning::history() const {
  const std::lock_guard lock(mutex_);
  return {samples_.begin(), samples_.end()};
}

// REQUIRES: mutex_ is held.
void OnlineLearning::sample() {
  const std::int64_t now = clock_.unix_ms();
  const auto every = std::chrono::milliseconds(kSampleEvery).count();
  if (!samples_.empty() && now - samples_.back().unix_ms < every) return;
  const OnlineCounts& c = view_.counts;
  samples_.push_back({now, c.mean_return, c.entropy, c.episodes, c.updates, view_.last_look});
  if (samples_.size() > kMaxSamples) samples_.pop_front();
}

void OnlineLearning::loop() {
  setpriority(PRIO_PROCESS, 0, kNice);  // on Linux: of this thread
  for (FeedbackDesk::Given& given : desk_.given(soon())) {
    {
      const std::lock_guard lock(mutex_);
      if (stop_) return;  // what is not learned from yet stays with the desk
    }
    take({std::move(given.episode), /*measured=*/false, given.space, given.name});
  }
  while (true) {
    LiveEpisode item;
    {
      std::unique_lock lock(mutex_);
      more_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      item = std::move(queue_.front());
      queue_.pop_front();
    }
    take(std::move(item));
  }
}

void OnlineLearning::take(LiveEpisode item) {
  const Status learned = learn(std::move(item));
  if (!learned) log::warn("online learning: {}", learned.error().message);
  const std::lock_guard lock(mutex_);
  view_.counts = learner_ == nullptr ? before_ : sum(before_, learner_->counts());
  if (learner_ != nullptr) view_.last_look = learner_->last_look();
  sample();
}

// Another policy was loaded meanwhile, or this is the first episode: learn on from what acts.
Status OnlineLearning::follow_head() {
  const SnapshotPtr head = shelf_.head();
  if (head == nullptr) return Error{ErrorCode::kNotFound, "no policy is loaded"};
  if (learner_ != nullptr && head->digest == acting_) return ok();
  if (learner_ != nullptr) before_ = sum(before_, learner_->counts());
  learner_.reset();
  used_.clear();  // still in the bank: it may suit the next start
  MEMSLOT_TRY(learner_, OnlineLearner::make(head->checkpoint, shelf_.engine(), options_));
  acting_ = head->digest;
  space_ = head->space;
  return ok();
}

Status OnlineLearning::learn(LiveEpisode item) {
  const bool acts = shelf_.head() != nullptr;  // else it was unloaded, and sessions go on with it
  MEMSLOT_TRY(acts ? follow_head() : ok());
  if (!acts || item.space != space_) {
    {
      const std::lock_guard lock(mutex_);
      ++view_.strange;
    }
    // Where none acts, another one may be loaded yet: feedback stays for the next start.
    return item.feedback.empty() || !acts ? ok() : desk_.used({item.feedback}, soon());
  }
  if (!item.feedback.empty()) used_.push_back(item.feedback);
  MEMSLOT_TRY(auto proposal, learner_->add(std::move(item.episode), item.measured));
  if (proposal) {
    MEMSLOT_TRY(publish(std::move(*proposal)));
  }
  if (used_.size() <= kMostUsed) return ok();
  const std::vector<std::string> oldest{used_.front()};
  used_.erase(used_.begin());
  return desk_.used(oldest, soon());
}

Status OnlineLearning::publish(OnlineLearner::Proposal proposal) {
  const auto published = shelf_.publish(proposal.checkpoint.bytes(),
                                        proposal.revert ? "revert" : "online", acting_, soon());
  if (!published) {
    // Somebody loaded another: the next episode follows it.
    if (published.error().code == ErrorCode::kConflict) return ok();
    return published.error();
  }
  log::info("policy: net gain {:+.4f} -> {:+.4f} nats per token (se {:.4f}, {} steps held out)",
            proposal.why.value_good, proposal.why.value_new, proposal.why.standard_error,
            proposal.why.steps);
  acting_ = published.value()->digest;
  MEMSLOT_TRY(learner_->published(published.value()->checkpoint, proposal.revert));
  changed_();
  return desk_.used(std::exchange(used_, {}), soon());
}

}  // namespace memslot
