// memslot-controller: wires bank, link and server, and ends cleanly on SIGTERM or SIGINT.
//
// Exit codes: 0; 2 for settings that are wrong; otherwise exit_code() of shared/base/error.h.
#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <functional>
#include <thread>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "controller/http/rest_api.h"
#include "controller/main/settings.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"
#include "shared/base/version.h"
#include "shared/files/write_file.h"
#include "shared/transport/joined_channel.h"
#include "storage/open_store.h"

namespace memslot {
namespace {

constexpr int kUsage = 2;

int fail(const Error& error, int code) {
  std::fprintf(stderr, "memslot-controller: %s\n", error.message.c_str());
  return code;
}

// Signals reach one thread, which asks all to stop. Made before any other thread, so that
// all inherit the mask.
class SignalWatch {
 public:
  SignalWatch() {
    sigemptyset(&signals_);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGCHLD, SIG_DFL);  // trainings are waited for
  }
  void start(std::function<void()> stop) {
    thread_ = std::thread([this, stop = std::move(stop)] {
      int signal = 0;
      sigwait(&signals_, &signal);
      stop();
    });
  }
  ~SignalWatch() { end(); }
  // Before what `stop` uses goes.
  void end() {
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

// The web inspector and the REST API; nothing where they are off.
struct Web {
  std::vector<HttpUser> users;
  http::ServerOptions options;
  std::unique_ptr<http::Metrics> metrics = std::make_unique<http::Metrics>("memslot_controller");
  std::unique_ptr<RestApi> api;
  std::unique_ptr<http::Server> server;

  void stop() {
    if (api != nullptr) api->stop();
    if (server != nullptr) server->stop();
  }
};

constexpr std::size_t kLargestFile = std::size_t{256} << 20;   // of a memory, or a gain table
constexpr std::size_t kLargestPolicy = std::size_t{32} << 20;  // that everybody may ask about

// Lets a browser on this host change something: whoever can read the bank's folder can read it. The
// same as long as the file is there, so that open pages outlive a restart.
Result<std::string> browser_token(const std::string& path) {
  constexpr std::size_t kDigits = 32;
  std::string token;
  if (std::FILE* const file = std::fopen(path.c_str(), "r")) {
    char text[kDigits + 1] = {};
    if (std::fread(text, 1, kDigits, file) == kDigits) token = text;
    std::fclose(file);
  }
  if (token.size() == kDigits) return token;
  char text[kDigits + 1];
  std::snprintf(text, sizeof text, "%016llx%016llx",
                static_cast<unsigned long long>(random_nonce()),
                static_cast<unsigned long long>(random_nonce()));
  MEMSLOT_TRY(write_file(path, std::string(text) + "\n", 0600));
  return std::string(text);
}

Result<Web> web_options(const ControllerSettings& settings) {
  Web web;
  constexpr std::uint16_t kPort = 7401;
  const bool guarded = !settings.key_file.empty() || settings.endpoint.starts_with("ipc:");
  MEMSLOT_TRY(auto place,
              http::options_at(settings.http, kPort, guarded && settings.http_tokens.empty()));
  if (!place) return web;
  web.options = std::move(*place);
  web.options.open = RestApi::open;
  web.options.workers = 64;
  for (const char* path :
       {"/api/v1/memories/import", "/api/v1/policy/load", "/api/v1/policy/training/tables"}) {
    web.options.max_body_of[path] = kLargestFile;
  }
  web.options.max_body_of["/api/v1/policy/choices"] = kLargestPolicy;
  if (settings.http_tokens.empty()) {
    web.users = {everybody()};
    return web;
  }
  MEMSLOT_TRY(web.users, read_http_users(settings.http_tokens));
  for (const HttpUser& user : web.users) web.options.tokens.push_back(user.token);
  return web;
}

Status start_web(Web& web, const ControllerSettings& settings, JoinedChannel& channel,
                 Server& server) {
  if (web.users.empty()) return ok();
  if (web.options.tokens.empty() && settings.bank != "memory:") {
    MEMSLOT_TRY(web.options.browser_token, browser_token(settings.bank + ".token"));
  }
  web.options.metrics = web.metrics.get();
  web.api = std::make_unique<RestApi>(
      RestParts{.users = web.users,
                .connect = [&channel](const std::string& user) { return channel.connect(user); },
                .metrics = [&server, &web] { return server.metrics_text() + web.metrics->text(); },
                .traces = !trace_folder(settings).empty(),
                .learning = settings.learn_online});
  MEMSLOT_TRY(web.server, http::Server::start(web.options, [&web](http::Exchange& exchange) {
                web.api->handle(exchange);
              }));
  return ok();
}

std::string web_words(const Web& web, const ControllerSettings& settings) {
  if (web.server == nullptr) return "";
  const std::string token =
      web.options.browser_token.empty() ? "" : " token_file=" + settings.bank + ".token";
  return " http=http://" + web.server->endpoint() + "/" + token;
}

Status serve(const ControllerSettings& settings, ServerSettings server_settings,
             const ServerOptions& link) {
  const SystemClock clock;
  SignalWatch signals;
  MEMSLOT_TRY(Web web, web_options(settings));
  for (const HttpUser& user : web.users) server_settings.access.grant(user.link, user.access);
  MEMSLOT_TRY(auto outer, bind_channel(link));
  JoinedChannel channel(std::move(outer));
  const StoreOptions options{.quota_bytes = static_cast<std::uint64_t>(settings.quota_mib) << 20,
                             .create_if_missing = true};
  MEMSLOT_TRY(const auto store, open_store(settings.bank, options, clock));
  MemoryBank bank(*store, clock);
  DocumentBank documents(*store, clock);
  Server server(channel, bank, documents, clock, std::move(server_settings));
  MEMSLOT_TRY(server.start());
  MEMSLOT_TRY(start_web(web, settings, channel, server));
  signals.start([&server, &web] {
    web.stop();  // while there is still somebody who answers it
    server.stop();
  });
  std::printf("memslot-controller ready endpoint=%s bank=%s memories=%zu jobs=%zu build=%s%s\n",
              channel.endpoint().c_str(), settings.bank.c_str(), server.memories(),
              server.waiting_jobs(), std::string(build_version()).c_str(),
              web_words(web, settings).c_str());
  std::fflush(stdout);
  server.run();
  signals.end();
  web.stop();
  log::info("stopped");
  channel.close();
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
  const auto served = serve(settings, std::move(server).value(), link.value());
  return served ? 0 : fail(served.error(), exit_code(served.error().code));
}

}  // namespace
}  // namespace memslot

int main(int argc, char** argv) { return memslot::run(argc, argv); }
