#include "controller/link/server.h"

#include <utility>

#include "shared/base/digest.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"
#include "shared/base/version.h"
#include "shared/files/mapped_file.h"
#include "shared/wire/codec.h"

namespace memslot {
namespace {

constexpr auto kBankTime = std::chrono::seconds(10);  // for what one message asks of the bank
constexpr auto kSlowTime = std::chrono::hours(2);
constexpr int kLostAfter = 4;  // heartbeats

}  // namespace

Server::Server(Channel& channel, MemoryBank& bank, DocumentBank& documents, const Clock& clock,
               ServerSettings settings)
    : channel_(channel),
      bank_(bank),
      clock_(clock),
      settings_(std::move(settings)),
      incarnation_(random_nonce()),
      outbox_(channel),
      keeper_(
          bank, clock, [this] { channel_.wake(); }, &documents, settings_.index),
      payloads_(bank, settings_.payload_cache_bytes),
      shelf_(documents, clock, settings_.engine),
      desk_(documents, clock),
      online_(settings_.learn_online
                  ? std::make_unique<OnlineLearning>(shelf_, desk_, clock, settings_.online,
                                                     [this] { channel_.wake(); })
                  : nullptr),
      jobs_(documents, bank, clock, settings_.jobs),
      traces_(settings_.traces, settings_.trace_limits, clock),
      decisions_(traces_, settings_.trace_features),
      trainings_(settings_.training, settings_.training_program, clock),
      steps_(bank, keeper_, payloads_, sessions_, settings_.steps,
             {&shelf_, online_.get(), online_ == nullptr ? nullptr : &desk_}),
      write_backs_(bank, keeper_, sessions_),
      relay_(outbox_, peers_),
      learning_(outbox_, peers_, jobs_, keeper_),
      admin_({.outbox = outbox_,
              .peers = peers_,
              .bank = bank_,
              .clock = clock_,
              .jobs = jobs_,
              .learning = learning_,
              .keeper = keeper_,
              .payloads = payloads_,
              .sessions = sessions_,
              .traces = traces_,
              .decisions = decisions_,
              .quick = quick_,
              .slow = slow_,
              .again = again_,
              .learned = {&shelf_, online_.get(), online_ == nullptr ? nullptr : &desk_},
              .trainings = trainings_}),
      metrics_({.clock = clock_,
                .channel = channel_,
                .bank = bank_,
                .traces = traces_,
                .shelf = shelf_,
                .online = online_.get(),
                .outbox = outbox_,
                .quick = quick_,
                .slow = slow_,
                .again = again_}),
      quick_([this] { channel_.wake(); }),
      slow_([this] { channel_.wake(); }),
      again_([this] { channel_.wake(); }) {}

Server::~Server() = default;

TimePoint Server::soon() const { return deadline_in(clock_, kBankTime); }

// Once a bank has had it, what acts is the bank's matter: learning may have gone on from it.
Status Server::load_policy() {
  MEMSLOT_TRY(shelf_.load(soon()));
  if (settings_.policy_file.empty()) return ok();
  MEMSLOT_TRY(const MappedFile file, MappedFile::open(settings_.policy_file));
  const auto view = file.bytes();
  const std::string bytes(reinterpret_cast<const char*>(view.data()), view.size());
  const bool decided = shelf_.head() != nullptr || shelf_.retired();
  if (decided && shelf_.find(sha256(view).hex(), soon())) return ok();
  const auto published = shelf_.publish(bytes, "file", "", soon());
  if (!published) return published.error().with_context(settings_.policy_file);
  return ok();
}

// Keys are compared as the policy that acts was trained to.
void Server::follow_policy() {
  const SnapshotPtr head = shelf_.head();
  if (head == nullptr ? pinned_.empty() : head->space == pinned_) return;
  pinned_ = head == nullptr ? "" : head->space;
  if (head == nullptr) return keeper_.pin(nullptr);
  keeper_.pin(std::make_shared<CandidateIndex::Pinned>(CandidateIndex::Pinned{
      head->checkpoint.task.model, head->checkpoint.task.layer, head->checkpoint.whitening}));
}

Status Server::start() {
  MEMSLOT_TRY(load_policy());
  follow_policy();
  MEMSLOT_TRY(keeper_.build());
  if (online_ != nullptr) online_->start();
  MEMSLOT_TRY(jobs_.load());
  MEMSLOT_TRY(traces_.load());
  if (traces_.keeps()) {
    steps_.on_choice([this](const Session& session, const StepContext& context, std::uint32_t slot,
                            const CandidateList& list, const Choice& choice) {
      decisions_.decided(session, context, slot, list, choice);
    });
  }
  const TimePoint now = clock_.now();
  next_heartbeat_ = now + settings_.heartbeat;
  next_garbage_ = now + settings_.garbage_every;
  next_flush_ = now + settings_.flush_every;
  next_tick_ = now;
  last_tick_ = now;
  return ok();
}

void Server::run() {
  while (!stop_) receive_one();
  quick_.begin_stop();
  slow_.begin_stop();
  again_.begin_stop();
  if (const auto flushed = bank_.flush_statistics(soon()); !flushed) {
    log::warn("statistics: {}", flushed.error().message);
  }
  // What is under way may erase a memory: not to be kept any more.
  for (Worker* const worker : {&quick_, &slow_, &again_}) {
    worker->finish();
    worker->run_completions();
  }
  keeper_.keep();
}

void Server::stop() {
  stop_ = true;
  channel_.wake();
}

void Server::receive_one() {
  auto packet = channel_.receive(next_tick_);
  if (packet) {
    dispatch(std::move(packet).value());
  } else if (packet.error().code == ErrorCode::kCancelled) {
    stop_ = true;
  }
  quick_.run_completions();
  slow_.run_completions();
  again_.run_completions();
  decisions_.flush();
  follow_policy();
  keeper_.adopt();
  if (clock_.now() >= next_tick_) tick();
}

void Server::dispatch(Packet packet) {
  ++counters_.messages;
  auto decoded = wire::decode(packet.frames);
  Peer* peer = peers_.find(packet.peer);
  if (peer != nullptr && peer->user != packet.user) {
    // The channel hands an identity over to whoever connects under it: its rights do not go along.
    lose(packet.peer, "another key came under its identity");
    peer = nullptr;
  }
  if (!decoded) {
    ++counters_.malformed;
    log::warn("a message was dropped: {}", decoded.error().message);
    return outbox_.error(packet.peer, 0, decoded.error());
  }
  wire::Message message = std::move(decoded).value();
  if (const auto* hello = std::get_if<wire::Hello>(&message.body)) {
    return on_hello(packet, message.request, *hello);
  }
  if (peer == nullptr) {
    ++counters_.strangers;
    return outbox_.error(packet.peer, 0, {ErrorCode::kUnavailable, "link: expected Hello first"});
  }
  peer->heard = clock_.now();
  route(*peer, std::move(message));
}

void Server::on_hello(const Packet& packet, std::uint64_t request, const wire::Hello& hello) {
  const auto access = settings_.access.access_of(packet.user);
  const bool generator = hello.role == wire::PeerRole::kGenerator;
  if (!access || !(generator ? access->generator : access->client)) {
    ++counters_.refused;
    return outbox_.error(
        packet.peer, request,
        {ErrorCode::kPermission, "link: expected a key that may act in this role"});
  }
  Peer* const same = peers_.find(packet.peer);
  if (same != nullptr && same->hello.incarnation != hello.incarnation) {
    lose(packet.peer, "the peer was started again");
  } else if (same != nullptr && same->hello_request != request) {
    come_back(*same, packet.peer);
  } else if (Peer* const before = peers_.find_process(hello, packet.user, packet.peer)) {
    come_back(*before, packet.peer);
  }
  Peer peer;
  peer.id = packet.peer;
  peer.user = packet.user;
  peer.hello = hello;
  peer.hello_request = request;
  peer.access = *access;
  peer.heard = clock_.now();
  peers_.put(std::move(peer));
  // A client is one command: only what it does is of interest, not that it came.
  if (generator)
    log::info("generator connected: {} {}", hello.build, hello.model_name);
  else
    log::debug("client connected: {}", hello.build);
  const auto heartbeat = std::chrono::duration_cast<std::chrono::milliseconds>(settings_.heartbeat);
  static_cast<void>(outbox_.send(packet.peer, request,
                                 wire::HelloReply{incarnation_, std::string(build_version()),
                                                  static_cast<std::uint32_t>(heartbeat.count())}));
  if (generator) learning_.tick();
}

// The same process over another connection: its sessions, leases and watched jobs go on; the events
// of its tasks may have holes, so those end.
void Server::come_back(Peer& before, const PeerId& now) {
  const PeerId old = before.id;
  if (before.is_generator()) {
    relay_.generator_lost(old, "generator: the connection broke and events may be missing");
  }
  if (old == now) return;
  sessions_.rehome(old, now);
  learning_.rehome(old, now);
  relay_.rehome_client(old, now);
  admin_.rehome(old, now);
  peers_.remove(old);
}

template <class T>
void Server::answer(const Peer& peer, std::uint64_t request, Result<T> result) {
  if (!result) return outbox_.error(peer.id, request, result.error());
  static_cast<void>(outbox_.send(peer.id, request, std::move(result).value()));
}

void Server::route(Peer& peer, wire::Message message) {
  if (std::holds_alternative<wire::Heartbeat>(message.body)) return;
  const std::uint64_t request = message.request;
  const TimePoint began = clock_.now();
  const bool known =
      peer.is_generator() ? route_generator(peer, message) : route_client(peer, message);
  metrics_.handled(message.body, clock_.now() - began);
  if (known) return;
  ++counters_.refused;
  outbox_.error(peer.id, request,
                {ErrorCode::kPermission, std::string("link: expected a message of a ") +
                                             (peer.is_generator() ? "generator" : "client") +
                                             ", found another's"});
}

bool Server::route_generator(Peer& peer, wire::Message& message) {
  const std::uint64_t request = message.request;
  wire::Body& body = message.body;
  if (auto* observation = std::get_if<wire::Observation>(&body)) {
    auto plan = steps_.handle(peer.id, *observation, soon());
    if (!plan) {
      outbox_.error(peer.id, request, plan.error());
    } else {
      static_cast<void>(outbox_.send(peer.id, request, std::move(plan.value().directive),
                                     std::move(plan.value().parts)));
    }
  } else if (auto* open = std::get_if<wire::OpenSession>(&body)) {
    open->namespaces = peer.access.seen(open->namespaces);
    answer(peer, request, steps_.open(peer.id, *open, soon()));
  } else if (const auto* fetch = std::get_if<wire::FetchMemory>(&body)) {
    auto fetched = steps_.fetch(peer.id, *fetch, soon());
    if (!fetched) {
      outbox_.error(peer.id, request, fetched.error());
    } else {
      static_cast<void>(outbox_.send(peer.id, request, std::move(fetched.value().reply),
                                     {std::move(fetched.value().payload)}));
    }
  } else if (const auto* write_back = std::get_if<wire::WriteBack>(&body)) {
    const std::span<const std::byte> payload =
        !message.parts.empty() ? std::span(*message.parts[0]) : std::span<const std::byte>();
    answer(peer, request, write_backs_.handle(peer.id, *write_back, payload, soon()));
  } else if (const auto* close = std::get_if<wire::CloseSession>(&body)) {
    answer(peer, request, steps_.close(peer.id, *close));
  } else if (const auto* events = std::get_if<wire::TraceEvents>(&body)) {
    record(peer, request, *events, message.parts[0]);
  } else if (const auto* progress = std::get_if<wire::LearnProgress>(&body)) {
    learning_.progress(peer, *progress);
  } else if (const auto* result = std::get_if<wire::LearnResult>(&body)) {
    learning_.result(peer, request, *result, message.parts);
    learning_.tick();
  } else if (const auto* failed = std::get_if<wire::LearnFailed>(&body)) {
    learning_.failed(peer, request, *failed);
    learning_.tick();
  } else if (auto* event = std::get_if<wire::TaskEvent>(&body)) {
    relay_.event(peer, std::move(*event));
  } else if (const auto* error = std::get_if<wire::ErrorReply>(&body)) {
    relay_.refused(peer, request, {error->code, error->message});
  } else {
    return false;
  }
  return true;
}

// A trace that cannot be kept is the record's loss, not the session's: the generator is told, and
// goes on.
void Server::record(Peer& peer, std::uint64_t request, const wire::TraceEvents& events,
                    const SharedBytes& frames) {
  const Status kept = traces_.take(
      events.session, events.sequence, *frames,
      [&](const std::vector<std::string>& namespaces) { return peer.access.sees_all(namespaces); });
  if (!kept) {
    ++counters_.traces_failed;
    log::warn("trace {}: {}", trace::trace_id(events.session), kept.error().message);
    return outbox_.error(peer.id, request, kept.error());
  }
  static_cast<void>(
      outbox_.send(peer.id, request, wire::TraceEventsReply{events.session, events.sequence}));
}

bool Server::route_client(Peer& peer, wire::Message& message) {
  if (const auto* task = std::get_if<wire::SubmitTask>(&message.body)) {
    submit(peer, message.request, *task);
  } else if (const auto* stop = std::get_if<wire::CancelTask>(&message.body)) {
    cancel(peer, stop->request);
  } else if (const auto* admin = std::get_if<wire::AdminRequest>(&message.body)) {
    admin_.handle(peer, message.request, *admin, message.parts);
  } else {
    return false;
  }
  return true;
}

void Server::submit(const Peer& client, std::uint64_t request, const wire::SubmitTask& task) {
  if (task.kind == "replay") {
    const auto full = admin_.replay_task(client, task);
    if (!full) {
      static_cast<void>(outbox_.failure(client.id, request, full.error()));
      return;
    }
    relay_.submit(client, request, full.value(),
                  [this](const Peer& p) { return sessions_.count(p.id); });
  } else if (Relay::handles(task.kind)) {
    relay_.submit(client, request, task, [this](const Peer& p) { return sessions_.count(p.id); });
  } else if (task.kind == "learn" || task.kind == "watch") {
    learning_.submit(client, request, task);
    learning_.tick();
  } else if (task.kind == "verify") {
    admin_.verify(client, request, task);
  } else {
    const Error error = invalid("task", "a kind of docs/formats/tasks.md", task.kind);
    static_cast<void>(outbox_.failure(client.id, request, error));
  }
}

void Server::cancel(const Peer& client, std::uint64_t request) {
  if (relay_.cancel(client.id, request) || learning_.unwatch(client.id, request)) return;
  admin_.cancel(client, request);
}

void Server::lose(const PeerId& id, const std::string& why) {
  const Peer* const peer = peers_.find(id);
  if (peer == nullptr) return;
  ++counters_.peers_lost;
  if (peer->is_generator()) {
    log::info("generator lost: {}", why);
    relay_.generator_lost(id, "generator: " + why);
    sessions_.drop_peer(id);
    learning_.generator_lost(id);
  } else {
    log::debug("client lost: {}", why);
    relay_.client_lost(id);
    learning_.client_lost(id);
    admin_.client_lost(id);
  }
  peers_.remove(id);
}

void Server::heartbeats(TimePoint now) {
  for (const PeerId& id : peers_.silent_since(now - kLostAfter * settings_.heartbeat)) {
    lose(id, "it was not heard of for four heartbeats");
  }
  if (now < next_heartbeat_) return;
  next_heartbeat_ = now + settings_.heartbeat;
  for (const auto& [id, peer] : peers_.all()) {
    static_cast<void>(outbox_.send(id, 0, wire::Heartbeat{incarnation_}));
  }
}

void Server::housekeeping(TimePoint now) {
  if (now >= next_flush_) {
    next_flush_ = now + settings_.flush_every;
    decisions_.keep_only(sessions_);
    // Full: the counts wait for the next time.
    static_cast<void>(quick_.submit([this]() -> Worker::Completion {
      const auto flushed = bank_.flush_statistics(soon());
      if (!flushed) log::warn("statistics: {}", flushed.error().message);
      return {};
    }));
  }
  if (now >= next_garbage_) {
    next_garbage_ = now + settings_.garbage_every;
    traces_.keep_limits();
    static_cast<void>(slow_.submit([this]() -> Worker::Completion {
      const auto report = collect_garbage(bank_.store(), clock_, settings_.garbage_grace,
                                          deadline_in(clock_, kSlowTime));
      if (report) metrics_.collected(report.value());
      if (!report) {
        log::warn("garbage: {}", report.error().message);
      } else if (report.value().removed > 0) {
        log::info("garbage: removed {} payloads, {} bytes", report.value().removed,
                  report.value().removed_bytes);
      }
      return {};
    }));
  }
}

LinkFigures Server::figures() {
  LinkFigures out;
  out.taken = clock_.now();
  out.server = counters_;
  out.steps = steps_.counters();
  for (const auto& [id, peer] : peers_.all())
    ++(peer.is_generator() ? out.generators : out.clients);
  out.sessions = sessions_.size();
  out.tasks = relay_.size();
  out.payload_hits = payloads_.hits();
  out.payload_misses = payloads_.misses();
  out.payload_bytes = payloads_.bytes();
  out.payload_budget = payloads_.max_bytes();
  out.memories = keeper_.index().memories();
  out.keys = keeper_.index().keys();
  out.index_builds = keeper_.builds();
  out.jobs = jobs_.count_by_state();
  out.jobs_entered = jobs_.entered();
  return out;
}

void Server::tick() {
  const TimePoint now = clock_.now();
  // We stood still (a debugger, a laptop's lid, a slow bank): what the peers said meanwhile waits
  // in the channel, so judge them by what comes now.
  const Duration gap = now - std::exchange(last_tick_, now);
  if (gap > settings_.heartbeat) {
    log::warn("the link stood still for {} ms",
              std::chrono::duration_cast<std::chrono::milliseconds>(gap).count());
    peers_.excuse(gap, now);
    jobs_.excuse(gap);
  }
  heartbeats(now);
  relay_.retry_failures();
  learning_.tick();
  keeper_.retry();
  housekeeping(now);
  if (const std::uint64_t wanted = metrics_.wanted()) metrics_.answer(wanted, figures());
  next_tick_ = now + std::min<Duration>(settings_.heartbeat / 4, std::chrono::milliseconds(100));
}

}  // namespace memslot
