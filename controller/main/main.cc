// memslot-controller: wires bank, link and server, and ends cleanly on SIGTERM or SIGINT.
//
// Exit codes: 0; 2 for settings that are wrong; otherwise exit_code() of shared/base/error.h.
#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <thread>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "controller/main/settings.h"
#include "shared/base/log.h"
#include "shared/base/version.h"
#include "storage/open_store.h"

namespace memslot {
namespace {

constexpr int kUsage = 2;

int fail(const Error& error, int code) {
  std::fprintf(stderr, "memslot-controller: %s\n", error.message.c_str());
  return code;
}

// Signals reach one thread, which asks the server to stop. Made before any other thread, so that
// all inherit the mask.
class SignalWatch {
 public:
  SignalWatch() {
    sigemptyset(&signals_);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
  }
  void start(Server& server) {
    thread_ = std::thread([this, &server] {
      int signal = 0;
      sigwait(&signals_, &signal);
      server.stop();
    });
  }
  ~SignalWatch() {
    if (!thread_.joinable()) return;
    pthread_kill(thread_.native_handle(), SIGTERM);  // where the server ended by itself
    thread_.join();
  }

 private:
  sigset_t signals_{};
  std::thread thread_;
};

int restore(const ControllerSettings& settings) {
  const auto restored = restore_store(settings.restore, settings.bank);
  if (!restored) return fail(restored.error(), exit_code(restored.error().code));
  const std::string traces = trace_folder(settings);
  if (!traces.empty()) {
    const auto copied = restore_traces(settings.restore + "/traces", traces);
    if (!copied) return fail(copied.error(), exit_code(copied.error().code));
  }
  std::printf("memslot-controller restored bank=%s from=%s\n", settings.bank.c_str(),
              settings.restore.c_str());
  return 0;
}

Status serve(const ControllerSettings& settings, const ServerSettings& server_settings,
             const ServerOptions& link) {
  const SystemClock clock;
  SignalWatch signals;
  MEMSLOT_TRY(const auto channel, bind_channel(link));
  const StoreOptions options{.quota_bytes = static_cast<std::uint64_t>(settings.quota_mib) << 20,
                             .create_if_missing = true};
  MEMSLOT_TRY(const auto store, open_store(settings.bank, options, clock));
  MemoryBank bank(*store, clock);
  DocumentBank documents(*store, clock);
  Server server(*channel, bank, documents, clock, server_settings);
  MEMSLOT_TRY(server.start());
  signals.start(server);
  std::printf("memslot-controller ready endpoint=%s bank=%s memories=%zu jobs=%zu build=%s\n",
              channel->endpoint().c_str(), settings.bank.c_str(), server.memories(),
              server.waiting_jobs(), std::string(build_version()).c_str());
  std::fflush(stdout);
  server.run();
  log::info("stopped");
  channel->close();
  return ok();
}

// A payload of some MiB would be mapped anew for every read and given back after it: its page
// faults then take longer than reading it. Kept on the heap, its pages stay.
void keep_large_blocks() {
#ifdef __GLIBC__
  constexpr int kLargest = 128 << 20;  // above any payload
  mallopt(M_MMAP_THRESHOLD, kLargest);
  mallopt(M_TRIM_THRESHOLD, kLargest);
#endif
}

int run(int argc, char** argv) {
  keep_large_blocks();
  ControllerSettings settings;
  ConfigTable table = settings_table(settings);
  const auto outcome = table.load(argc, argv, environ);
  if (!outcome) return fail(outcome.error(), kUsage);
  if (!outcome.value().run) {
    std::fputs(outcome.value().text.c_str(), stdout);
    return 0;
  }
  if (const auto started = log::start("controller", settings.log_level); !started) {
    return fail(started.error(), kUsage);
  }
  if (!settings.restore.empty()) return restore(settings);
  auto server = server_settings(settings);
  if (!server) return fail(server.error(), kUsage);
  server.value().engine = torch_engine();
  const auto link = link_options(settings, server.value().access);
  if (!link) return fail(link.error(), exit_code(link.error().code));
  const auto served = serve(settings, server.value(), link.value());
  return served ? 0 : fail(served.error(), exit_code(served.error().code));
}

}  // namespace
}  // namespace memslot

int main(int argc, char** argv) { return memslot::run(argc, argv); }
