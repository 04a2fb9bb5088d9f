// memslot-generator: loads a model, connects to the controller and serves until SIGTERM or SIGINT.
//
// Exit codes: 0; 2 for settings that are wrong; otherwise exit_code() of shared/base/error.h.
#include <csignal>
#include <cstdio>
#include <optional>
#include <string>

#include "generator/backend/thread_team.h"
#include "generator/http/openai_api.h"
#include "generator/main/settings.h"
#include "generator/runtime/generator_service.h"
#include "shared/base/clock.h"
#include "shared/base/log.h"
#include "shared/transport/zmq_channel.h"

namespace memslot {
namespace {

constexpr int kUsage = 2;

int fail(const Error& error, int code) {
  std::fprintf(stderr, "memslot-generator: %s\n", error.message.c_str());
  return code;
}

Result<std::unique_ptr<Channel>> connect(const GeneratorSettings& settings) {
  ClientOptions options;
  options.endpoint = settings.endpoint;
  if (!settings.keys.empty()) {
    MEMSLOT_TRY(options.keys, read_keys(settings.keys));
    MEMSLOT_TRY(const auto server, read_public_keys(settings.server_key));
    if (server.size() != 1) {
      return invalid("server_key", "a file with one public key", std::to_string(server.size()));
    }
    options.server_key = server.front();
  }
  return connect_channel(options);
}

// Null: off.
Result<std::unique_ptr<http::Server>> serve_http(const GeneratorSettings& settings, OpenAiApi& api,
                                                 http::Metrics& metrics) {
  constexpr std::uint16_t kPort = 7402;
  const bool guarded = !settings.keys.empty() || settings.endpoint.starts_with("ipc:");
  MEMSLOT_TRY(auto place,
              http::options_at(settings.http, kPort, guarded && settings.http_tokens.empty()));
  if (!place) return std::unique_ptr<http::Server>();
  http::ServerOptions options = std::move(*place);
  if (!settings.http_tokens.empty()) {
    MEMSLOT_TRY(options.tokens, http::read_tokens(settings.http_tokens));
  }
  // As many as may generate or wait for it; what is over that is refused at once by the scheduler.
  options.workers = static_cast<int>(settings.max_sessions + settings.max_waiting + 8);
  options.metrics = &metrics;
  return http::Server::start(std::move(options),
                             [&api](http::Exchange& exchange) { api.handle(exchange); });
}

Status serve(const GeneratorSettings& settings) {
  // Before any thread is made, so that all of them leave the signals to sigwait().
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  MEMSLOT_TRY(log::start("generator", settings.log_level));
  MEMSLOT_TRY(auto channel, connect(settings));
  MEMSLOT_TRY(GeneratorOptions options, generator_options(settings));
  const SystemClock clock;
  MEMSLOT_TRY(auto service, GeneratorService::open(std::move(options), clock));
  service->start(std::move(channel));
  http::Metrics metrics("memslot_generator");
  OpenAiApi api(service->engine(),
                [&service, &metrics] { return service->metrics_text() + metrics.text(); });
  MEMSLOT_TRY(const auto web, serve_http(settings, api, metrics));
  const std::string where = web == nullptr ? "" : " http=" + web->endpoint();
  std::printf("%s%s\n", service->ready_line().c_str(), where.c_str());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  if (web != nullptr) web->stop();
  log::info("stopping: finishing the steps under way and sending what waits");
  service->stop();
  return ok();
}

int run(int argc, char** argv, char** environment) {
  GeneratorSettings settings;
  auto outcome = load_settings(argc, argv, environment, &settings);
  if (outcome && !outcome.value().run) {
    std::fputs(outcome.value().text.c_str(), stdout);
    return 0;
  }
  if (!outcome) return fail(outcome.error(), kUsage);
  const Status served = serve(settings);
  return served ? 0 : fail(served.error(), exit_code(served.error().code));
}

}  // namespace
}  // namespace memslot

int main(int argc, char** argv, char** environment) {
  memslot::bound_thread_spinning(argv);
  return memslot::run(argc, argv, environment);
}
