#include "controller/link/controller_metrics.h"

#include <algorithm>  // max
#include <limits>

namespace memslot {
namespace {

using metrics::Page;

constexpr std::chrono::seconds kPatience{1};  // with the link's thread, and with the bank
constexpr std::array kHandlerNames = {"observation", "open_session", "fetch_memory",
                                      "write_back",  "learn_result", "other"};
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();  // no value yet

std::size_t handler_of(const wire::Body& message) {
  if (std::holds_alternative<wire::Observation>(message)) return 0;
  if (std::holds_alternative<wire::OpenSession>(message)) return 1;
  if (std::holds_alternative<wire::FetchMemory>(message)) return 2;
  if (std::holds_alternative<wire::WriteBack>(message)) return 3;
  if (std::holds_alternative<wire::LearnResult>(message)) return 4;
  return 5;
}

void collect_steps(const StepCounters& steps, Page& page) {
  page.counter("memslot_controller_steps_total", "Observations that were decided.", steps.steps);
  page.counter("memslot_controller_steps_repeated_total",
               "Observations that came again and got the same directive.", steps.repeated);
  constexpr auto kDecisions = "memslot_controller_decisions_total";
  constexpr auto kDecisionsHelp =
      "What was decided for a slot: to keep what is active, base, or to use another memory.";
  page.counter(kDecisions, kDecisionsHelp, steps.keep, {{"action", "keep"}});
  page.counter(kDecisions, kDecisionsHelp, steps.base, {{"action", "base"}});
  page.counter(kDecisions, kDecisionsHelp, steps.use, {{"action", "use"}});
  constexpr auto kUses = "memslot_controller_uses_total";
  constexpr auto kUsesHelp =
      "Decisions to use another memory, by whether the generator held it or its payload was sent "
      "along.";
  page.counter(kUses, kUsesHelp, steps.resident, {{"payload", "resident"}});
  page.counter(kUses, kUsesHelp, steps.use - steps.resident, {{"payload", "sent"}});
  page.counter("memslot_controller_directive_payload_bytes_total",
               "Bytes of payloads sent with directives.", steps.payload_bytes);
  page.counter("memslot_controller_payloads_unreadable_total",
               "Memories chosen whose payload could not be read or sent: what was active stayed.",
               steps.payload_failed);
  page.counter("memslot_controller_residents_unknown_total",
               "Observations whose list of residents did not follow on the one before.",
               steps.residents_lost);
}

void collect_link(const LinkFigures& f, Page& page) {
  constexpr auto kPeers = "memslot_controller_peers";
  constexpr auto kPeersHelp = "Connected peers.";
  page.gauge(kPeers, kPeersHelp, f.generators, {{"role", "generator"}});
  page.gauge(kPeers, kPeersHelp, f.clients, {{"role", "client"}});
  page.counter("memslot_controller_peers_lost_total",
               "Peers that fell silent, came back as another process or under another key.",
               f.server.peers_lost);
  page.gauge("memslot_controller_sessions", "Open sessions.", f.sessions);
  page.gauge("memslot_controller_tasks", "Tasks that generators work at for clients.", f.tasks);
  constexpr auto kRefused = "memslot_controller_messages_refused_total";
  constexpr auto kRefusedHelp =
      "Messages refused: malformed, from who had not said Hello, or not this peer's to send.";
  page.counter(kRefused, kRefusedHelp, f.server.malformed, {{"reason", "malformed"}});
  page.counter(kRefused, kRefusedHelp, f.server.strangers, {{"reason", "stranger"}});
  page.counter(kRefused, kRefusedHelp, f.server.refused, {{"reason", "permission"}});
}

void collect_jobs(const LinkFigures& f, Page& page) {
  for (std::size_t i = 0; i < f.jobs.size(); ++i) {
    page.gauge("memslot_controller_jobs",
               "Learn jobs by state; of those that ended, the newest are kept.", f.jobs[i],
               {{"state", job_state_name(static_cast<JobState>(i + 1))}});
  }
  for (std::size_t i = 0; i < f.jobs_entered.size(); ++i) {
    page.counter("memslot_controller_jobs_entered_total",
                 "Times that a learn job came into a state; queued again where a lease ended "
                 "without a result.",
                 f.jobs_entered[i], {{"state", job_state_name(static_cast<JobState>(i + 1))}});
  }
}

void collect_index(const LinkFigures& f, Page& page) {
  page.gauge("memslot_controller_index_memories", "Memories in the candidate index.", f.memories);
  page.gauge("memslot_controller_index_keys", "Keys in the candidate index.", f.keys);
  page.counter("memslot_controller_index_builds_total",
               "Times that making the index from the bank was begun.", f.index_builds);
  constexpr auto kLookups = "memslot_controller_payload_cache_lookups_total";
  constexpr auto kLookupsHelp = "Payloads looked for in the cache; a miss is read from the bank.";
  page.counter(kLookups, kLookupsHelp, f.payload_hits, {{"result", "hit"}});
  page.counter(kLookups, kLookupsHelp, f.payload_misses, {{"result", "miss"}});
  page.gauge("memslot_controller_payload_cache_bytes", "Bytes of cached payloads.",
             f.payload_bytes);
  page.gauge("memslot_controller_payload_cache_budget_bytes", "Most that cached payloads may take.",
             f.payload_budget);
}

}  // namespace

void ControllerMetrics::handled(const wire::Body& message, Duration time) {
  handlers_[handler_of(message)].observe(time);
}

std::uint64_t ControllerMetrics::wanted() const {
  const std::uint64_t asked = asked_.load(std::memory_order_acquire);
  return asked == answered_.load(std::memory_order_relaxed) ? 0 : asked;
}

void ControllerMetrics::answer(std::uint64_t wanted, const LinkFigures& figures) {
  {
    const std::lock_guard lock(mutex_);
    figures_ = figures;
    answered_ = wanted;
  }
  answer_came_.notify_all();
}

LinkFigures ControllerMetrics::ask() {
  const std::uint64_t mine = ++asked_;
  std::unique_lock lock(mutex_);
  answer_came_.wait_for(lock, kPatience, [&] { return answered_ >= mine; });
  return figures_;
}

void ControllerMetrics::collected(const GarbageReport& report) {
  garbage_payloads_.add(report.removed);
  garbage_bytes_.add(report.removed_bytes);
}

void ControllerMetrics::collect_bank(Page& page) {
  const auto read = p_.bank.store().usage(deadline_in(p_.clock, kPatience));
  StoreUsage usage;
  {
    const std::lock_guard lock(mutex_);
    if (read) usage_ = read.value();
    usage = usage_;
  }
  page.gauge("memslot_controller_bank_readable",
             "1 where the bank told its sizes, 0 where it did not: then they are of before.",
             read ? 1 : 0);
  page.gauge("memslot_controller_bank_records", "Records: memories, jobs, policies and others.",
             usage.records);
  page.gauge("memslot_controller_bank_payload_bytes", "Bytes of stored payloads.",
             usage.payload_bytes);
  page.gauge("memslot_controller_bank_disk_bytes", "Bytes that the bank's files occupy.",
             usage.disk_bytes);
  page.gauge("memslot_controller_bank_quota_bytes",
             "Most that stored payloads may occupy; 0: no "
             "limit.",
             usage.quota_bytes);
  page.counter("memslot_controller_bank_compactions_total",
               "Compactions that the bank's engine has finished.", usage.compactions);
  page.counter("memslot_controller_bank_published_total", "Versions that became a memory's head.",
               p_.bank.counters().published.value());
  page.counter("memslot_controller_bank_write_conflicts_total",
               "Writes that found another head than they were made from (a write-back or a learned "
               "version is then kept as a branch).",
               p_.bank.counters().conflicts.value());
  page.counter("memslot_controller_garbage_payloads_total",
               "Unreferenced payloads that garbage collection removed.", garbage_payloads_.value());
  page.counter("memslot_controller_garbage_bytes_total", "Bytes of those payloads.",
               garbage_bytes_.value());
  const TraceStore::Usage traces = p_.traces.usage();
  page.gauge("memslot_controller_traces", "Traces kept.", traces.traces);
  page.gauge("memslot_controller_trace_bytes", "Bytes of the traces.", traces.bytes);
}

void ControllerMetrics::collect_learning(Page& page) const {
  const LearningView view = p_.online == nullptr ? LearningView{} : p_.online->view();
  const OnlineCounts& counts = view.counts;
  page.gauge("memslot_controller_policy_version",
             "Number of the learned policy's version that acts; 0: none is loaded.",
             p_.shelf.head_number());
  page.gauge("memslot_controller_learner_enabled", "1 with --learn-online, else 0.",
             p_.online == nullptr ? 0 : 1);
  constexpr auto kEpisodes = "memslot_controller_learner_episodes_total";
  constexpr auto kEpisodesHelp =
      "Episodes of live sessions, by what became of them: trained on, held out for the guard, "
      "refused as unfit, dropped because the queue was full, left because another whitening, or "
      "none, acts.";
  page.counter(kEpisodes, kEpisodesHelp, counts.episodes, {{"result", "trained"}});
  page.counter(kEpisodes, kEpisodesHelp, counts.held_out, {{"result", "held_out"}});
  page.counter(kEpisodes, kEpisodesHelp, counts.refused, {{"result", "refused"}});
  page.counter(kEpisodes, kEpisodesHelp, view.dropped, {{"result", "dropped"}});
  page.counter(kEpisodes, kEpisodesHelp, view.strange, {{"result", "strange"}});
  page.counter("memslot_controller_learner_steps_total", "Steps of the episodes trained on.",
               counts.steps);
  page.counter("memslot_controller_learner_updates_total", "Updates of the learner's policy.",
               counts.updates);
  constexpr auto kVerdicts = "memslot_controller_learner_verdicts_total";
  constexpr auto kVerdictsHelp =
      "What the guard decided: to publish the learner's policy, to take a published one back, to "
      "set the learner back.";
  page.counter(kVerdicts, kVerdictsHelp, counts.snapshots, {{"verdict", "published"}});
  page.counter(kVerdicts, kVerdictsHelp, counts.reverts, {{"verdict", "reverted"}});
  page.counter(kVerdicts, kVerdictsHelp, counts.set_back, {{"verdict", "set_back"}});
  const bool updated = counts.updates > 0;
  page.gauge("memslot_controller_learner_return_nats",
             "Mean return of the last updates' episodes, in nats per token; NaN before the first.",
             updated ? counts.mean_return : kNone);
  page.gauge("memslot_controller_learner_entropy_nats",
             "Entropy of the learner's choices at the last update; NaN before the first.",
             updated ? counts.entropy : kNone);
  const auto& look = view.last_look;
  constexpr auto kLook = "memslot_controller_learner_look_nats";
  constexpr auto kLookHelp =
      "Net gain that the guard's last look estimated of the policy that acts and of the learner's, "
      "in nats per token; NaN before the first.";
  page.gauge(kLook, kLookHelp, look ? look->value_good : kNone, {{"policy", "acting"}});
  page.gauge(kLook, kLookHelp, look ? look->value_new : kNone, {{"policy", "learner"}});
  page.gauge("memslot_controller_learner_regret_nats",
             "What the policy that acts is estimated to lose against the learner's, in nats per "
             "token, at least 0; NaN before the guard's first look.",
             look ? std::max(0.0, look->difference()) : kNone);
}

void ControllerMetrics::collect_queues(Page& page) const {
  const LearningView view = p_.online == nullptr ? LearningView{} : p_.online->view();
  constexpr auto kQueues = "memslot_controller_queue_length";
  constexpr auto kQueuesHelp =
      "What waits: quick and slow work beside the link (verbs, statistics; backup, removal), "
      "decisions of traces made again, "
      "episodes for the learner.";
  page.gauge(kQueues, kQueuesHelp, p_.quick.waiting(), {{"queue", "quick"}});
  page.gauge(kQueues, kQueuesHelp, p_.slow.waiting(), {{"queue", "slow"}});
  page.gauge(kQueues, kQueuesHelp, p_.again.waiting(), {{"queue", "again"}});
  page.gauge(kQueues, kQueuesHelp, view.queued, {{"queue", "learner"}});
  const ChannelStats channel = p_.channel.stats();
  constexpr auto kPackets = "memslot_controller_link_messages_total";
  constexpr auto kPacketsHelp = "Messages to and from all peers.";
  page.counter(kPackets, kPacketsHelp, channel.sent, {{"direction", "sent"}});
  page.counter(kPackets, kPacketsHelp, channel.received, {{"direction", "received"}});
  constexpr auto kDropped = "memslot_controller_link_messages_dropped_total";
  constexpr auto kDroppedHelp =
      "Messages that were not sent (a peer's queue was full) or not taken (over a limit).";
  page.counter(kDropped, kDroppedHelp, channel.overloaded, {{"reason", "queue_full"}});
  page.counter(kDropped, kDroppedHelp, channel.dropped, {{"reason", "over_limit"}});
  page.counter("memslot_controller_sends_failed_total",
               "Messages that could not be sent, for whatever reason.", p_.outbox.refused());
}

std::string ControllerMetrics::text() {
  const LinkFigures figures = ask();
  Page page;
  collect_steps(figures.steps, page);
  for (std::size_t i = 0; i < kHandlers; ++i) {
    page.histogram("memslot_controller_handler_seconds",
                   "Handling one message on the link's thread, its answer handed over included.",
                   handlers_[i], {{"message", kHandlerNames[i]}});
  }
  collect_link(figures, page);
  collect_queues(page);
  page.gauge("memslot_controller_figures_age_seconds",
             "Age of what the link's thread tells here; above a second it stands still.",
             std::chrono::duration<double>(p_.clock.now() - figures.taken).count());
  collect_index(figures, page);
  collect_jobs(figures, page);
  collect_bank(page);
  page.counter("memslot_controller_traces_failed_total", "Pieces of traces that could not be kept.",
               figures.server.traces_failed);
  collect_learning(page);
  page.process("memslot_controller");
  return page.text();
}

}  // namespace memslot
