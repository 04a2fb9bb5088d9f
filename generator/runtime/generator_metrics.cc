#include "generator/runtime/generator_metrics.h"

namespace memslot {
namespace {

using metrics::Page;

void collect_sessions(const GeneratorFigures& f, Page& page) {
  constexpr auto kSessions = "memslot_generator_sessions";
  constexpr auto kSessionsHelp = "Sessions that run, and those that wait for a place.";
  page.gauge(kSessions, kSessionsHelp, f.scheduler.sessions, {{"state", "running"}});
  page.gauge(kSessions, kSessionsHelp, f.scheduler.waiting, {{"state", "waiting"}});
  page.counter("memslot_generator_sessions_refused_total",
               "Sessions refused because too many waited for a place.", f.scheduler.refused);
  page.gauge("memslot_generator_compute_queue_length",
             "Pieces of work (a step, a part of a prompt) that wait for the compute thread.",
             f.scheduler.queued);
  page.counter("memslot_generator_compute_pieces_total",
               "Pieces of work that the compute thread has begun.", f.scheduler.pieces);
  page.gauge("memslot_generator_tasks", "Tasks of the controller's clients under way.",
             f.tasks.running);
  constexpr auto kEnded = "memslot_generator_tasks_ended_total";
  constexpr auto kEndedHelp = "Tasks of the controller's clients that ended.";
  page.counter(kEnded, kEndedHelp, f.tasks.done, {{"result", "done"}});
  page.counter(kEnded, kEndedHelp, f.tasks.failed, {{"result", "failed"}});
  page.counter(kEnded, kEndedHelp, f.tasks.refused, {{"result", "refused"}});
}

void collect_memories(const GeneratorFigures& f, Page& page) {
  page.gauge("memslot_generator_resident_memories", "Loaded memories kept for the next swap.",
             f.residents.memories);
  page.gauge("memslot_generator_resident_budget_bytes", "Most that resident memories may take.",
             f.residents.budget);
  page.counter("memslot_generator_resident_evictions_total",
               "Resident memories dropped to make room.", f.residents.evictions);
  constexpr auto kLoads = "memslot_generator_loads_total";
  constexpr auto kLoadsHelp = "Payloads verified and packed for a slot.";
  page.counter(kLoads, kLoadsHelp, f.loads.loads, {{"result", "ok"}});
  page.counter(kLoads, kLoadsHelp, f.loads.failures, {{"result", "failed"}});
  page.counter("memslot_generator_loaded_bytes_total", "Bytes of the payloads that were loaded.",
               f.loads.bytes);
  const std::pair<std::string_view, std::size_t> parts[] = {
      {"weights", f.memory.weights},
      {"scratch", f.memory.scratch},
      {"kv", f.memory.kv},
      {"resident", f.memory.resident},
      {"learning_workspace", f.memory.learning_workspace}};
  for (const auto& [name, bytes] : parts) {
    page.gauge("memslot_generator_memory_bytes",
               "What the parts hold: the model's weights, working space, all caches, resident "
               "memories, the learner.",
               bytes, {{"part", name}});
  }
}

void collect_learning(const GeneratorFigures& f, Page& page) {
  page.gauge("memslot_generator_learn_jobs", "Learn jobs here that wait or run.",
             f.learning.queued);
  constexpr auto kJobs = "memslot_generator_learn_jobs_ended_total";
  constexpr auto kJobsHelp =
      "Learn jobs that the controller has answered: learned, failed, or not accepted because the "
      "lease was no longer this generator's.";
  page.counter(kJobs, kJobsHelp, f.learning.learned, {{"result", "learned"}});
  page.counter(kJobs, kJobsHelp, f.learning.failed, {{"result", "failed"}});
  page.counter(kJobs, kJobsHelp, f.learning.fenced, {{"result", "fenced"}});
}

void collect_link(const GeneratorFigures& f, Page& page) {
  page.gauge("memslot_generator_outbox_length",
             "Write-backs and results that wait for the controller.", f.outbox.waiting);
  page.gauge("memslot_generator_outbox_bytes", "Bytes of what waits in the outbox.",
             f.outbox.bytes);
  constexpr auto kSent = "memslot_generator_outbox_sent_total";
  constexpr auto kSentHelp = "Write-backs and results that the controller has answered.";
  page.counter(kSent, kSentHelp, f.outbox.acknowledged, {{"result", "acknowledged"}});
  page.counter(kSent, kSentHelp, f.outbox.refused, {{"result", "refused"}});
  page.counter("memslot_generator_outbox_retries_total", "Times that the outbox sent again.",
               f.outbox.retries);
  page.gauge("memslot_generator_link_connected", "1 where the controller is there, else 0.",
             f.connected ? 1 : 0);
  page.counter("memslot_generator_link_lost_total", "Times that the controller was lost.",
               f.rpc.lost);
  page.counter("memslot_generator_link_resent_total", "Requests sent again after silence.",
               f.rpc.resent);
  page.counter("memslot_generator_link_late_replies_total",
               "Replies that came after their deadline.", f.rpc.late);
  constexpr auto kMessages = "memslot_generator_link_messages_total";
  constexpr auto kMessagesHelp = "Messages to and from the controller.";
  page.counter(kMessages, kMessagesHelp, f.channel.sent, {{"direction", "sent"}});
  page.counter(kMessages, kMessagesHelp, f.channel.received, {{"direction", "received"}});
  constexpr auto kDropped = "memslot_generator_link_messages_dropped_total";
  constexpr auto kDroppedHelp =
      "Messages that were not sent (the queue was full) or not taken (over a limit, malformed).";
  page.counter(kDropped, kDroppedHelp, f.channel.overloaded, {{"reason", "queue_full"}});
  page.counter(kDropped, kDroppedHelp, f.channel.dropped, {{"reason", "over_limit"}});
  page.counter(kDropped, kDroppedHelp, f.rpc.malformed, {{"reason", "malformed"}});
}

}  // namespace

void collect(const GeneratorFigures& figures, Page& page) {
  collect_sessions(figures, page);
  collect_memories(figures, page);
  collect_learning(figures, page);
  collect_link(figures, page);
}

void collect(const LearnWorker::Times& times, Page& page) {
  page.histogram(
      "memslot_generator_learn_step_seconds",
      "From one training step of a learn job to the next, with its waiting for decoding.",
      times.step);
  constexpr auto kJob = "memslot_generator_learn_job_seconds";
  constexpr auto kJobHelp = "One learn job here, without its waiting in the queue.";
  page.histogram(kJob, kJobHelp, times.learned, {{"result", "learned"}});
  page.histogram(kJob, kJobHelp, times.failed, {{"result", "failed"}});
}

}  // namespace memslot
