#include "controller/main/settings.h"

#include "shared/base/beside.h"

namespace memslot {
namespace {

constexpr const char* kMore =
    "Files: BANK (RocksDB), and beside it BANK.traces (generations), BANK.training (policies), "
    "BANK.index\n"
    "(what the next start need not make again), BANK.token (lets a browser on this host change "
    "something).\n"
    "Its ready line, on standard output, says where it listens; the log goes to standard error. "
    "SIGTERM and\n"
    "SIGINT end it cleanly; after any other end nothing that was acknowledged is lost. Exit "
    "codes:\n"
    "docs/operations.md.\n"
    "\n"
    "Examples:\n"
    "  memslot-controller --bank ~/memories\n"
    "  memslot-controller --config controller.toml --http 0.0.0.0:7401 --http-tokens tokens.txt\n"
    "  memslot-controller --restore /var/backups/memslot/monday --bank new-bank";
constexpr std::int64_t kMiB = std::int64_t{1} << 20;

std::size_t bytes_of_mib(std::int64_t mib) { return static_cast<std::size_t>(mib * kMiB); }

// A folder that is named, or beside the bank; "": none.
std::string beside(const ControllerSettings& s, const std::string& named, const char* ending) {
  if (named == "off" || (named == "auto" && s.bank == "memory:")) return "";
  return named == "auto" ? s.bank + ending : named;
}

}  // namespace

std::string trace_folder(const ControllerSettings& s) { return beside(s, s.traces, ".traces"); }
std::string index_folder(const ControllerSettings& s) { return beside(s, s.index, ".index"); }
std::string training_folder(const ControllerSettings& s) {
  return beside(s, s.training, ".training");
}

ConfigTable settings_table(ControllerSettings& s) {
  ConfigTable t("memslot-controller", "MEMSLOT_CONTROLLER",
                "Owns the bank of memories and chooses which one each generator loads.", kMore);
  t.add({.name = "bank",
         .target = &s.bank,
         .help = "directory of the bank; the word memory: (with its colon) keeps nothing"});
  t.add({.name = "endpoint",
         .target = &s.endpoint,
         .help = "where generators and clients connect: tcp://ADDRESS:PORT or ipc://PATH"});
  t.add({.name = "restore",
         .target = &s.restore,
         .help = "make the bank directory from this backup, then end"});
  t.add({.name = "policy",
         .target = &s.policy,
         .help = "for sessions that name none: base, random, nearest[:THRESHOLD], fixed:MEMORY, "
                 "learned, or auto: learned where one is loaded and fits, else nearest"});
  t.add({.name = "policy_file",
         .target = &s.policy_file,
         .help = "a policy checkpoint to load at the start, unless the bank has had it"});
  t.add({.name = "learn_online",
         .target = &s.learn_online,
         .help = "learn from live sessions: those of the learned policy draw their choices"});
  t.add({.name = "index",
         .target = &s.index,
         .help = "folder of a copy of the candidate index, so that a start need not make it again; "
                 "auto: beside the bank, BANK.index; off: every start does"});
  t.add({.name = "traces",
         .target = &s.traces,
         .help = "folder of the record of every generation; auto: beside the bank, BANK.traces; "
                 "off: none is kept"});
  t.add({.name = "trace_mib",
         .target = &s.trace_mib,
         .help = "most that traces occupy; the oldest go",
         .unit = "MiB",
         .min = 1,
         .max = 1 << 30});
  t.add({.name = "trace_days",
         .target = &s.trace_days,
         .help = "how long traces are kept",
         .unit = "days",
         .min = 1,
         .max = 36500});
  t.add({.name = "trace_features",
         .target = &s.trace_features,
         .help = "record all candidates of each decision, their features and scores"});
  t.add({.name = "training",
         .target = &s.training,
         .help = "folder of gain tables and of the policies trained from them on request; auto: "
                 "beside the bank, BANK.training; off: none are"});
  t.add({.name = "key_file",
         .target = &s.key_file,
         .help = "this controller's CURVE keys (memslot keygen); needed beyond loopback and ipc"});
  t.add({.name = "clients",
         .target = &s.clients,
         .help = "with key_file, who may connect: KEY client,generator NAMESPACE,... (or *)"});
  t.add({.name = "http",
         .target = &s.http,
         .help = "serve the web inspector and the REST API on ADDRESS:PORT; auto: 127.0.0.1:7401, "
                 "unless that is taken, or the link has keys or is ipc and there are no "
                 "http_tokens; off"});
  t.add({.name = "http_tokens",
         .target = &s.http_tokens,
         .help = "file of bearer tokens, lines TOKEN NAMESPACE,... (or *); needed beyond "
                 "loopback"});
  t.add({.name = "log_level",
         .target = &s.log_level,
         .help = "least level of the log",
         .choices = {"trace", "debug", "info", "warn", "error", "off"}});
  t.add({.name = "quota_mib",
         .target = &s.quota_mib,
         .help = "most that stored payloads occupy; 0: no limit",
         .unit = "MiB",
         .min = 0,
         .max = 1 << 30});
  t.add({.name = "heartbeat_ms",
         .target = &s.heartbeat_ms,
         .help = "between heartbeats; a peer silent for four is lost",
         .unit = "ms",
         .min = 10,
         .max = 60000});
  t.add({.name = "candidates",
         .target = &s.candidates,
         .help = "memories that a policy chooses among, base and the current one included",
         .min = 2,
         .max = kMaxCandidates});
  t.add({.name = "window_tokens",
         .target = &s.window_tokens,
         .help = "newest text that nearest keys are searched for",
         .unit = "tokens",
         .min = 1,
         .max = wire::kWindowTokens});
  t.add({.name = "payload_cache_mib",
         .target = &s.payload_cache_mib,
         .help = "payloads kept in memory",
         .unit = "MiB",
         .min = 0,
         .max = 1 << 20});
  t.add({.name = "max_pending_mib",
         .target = &s.max_pending_mib,
         .help = "most that waits to be sent to one peer",
         .unit = "MiB",
         .min = 1,
         .max = 1 << 16});
  t.add({.name = "lease_s",
         .target = &s.lease_s,
         .help = "a learn job whose generator is silent for so long is given to another",
         .unit = "s",
         .min = 1,
         .max = 86400});
  t.add({.name = "garbage_s",
         .target = &s.garbage_s,
         .help = "between garbage collections",
         .unit = "s",
         .min = 1,
         .max = 86400});
  t.add({.name = "garbage_grace_s",
         .target = &s.garbage_grace_s,
         .help = "age from which an unreferenced payload is garbage",
         .unit = "s",
         .min = 60,
         .max = 864000});
  return t;
}

Result<ServerSettings> server_settings(const ControllerSettings& s) {
  const bool learned = s.policy == "auto" || s.policy == "learned";
  if (const auto policy = make_policy(s.policy); !policy && !learned) return policy.error();
  if (s.key_file.empty() && !s.clients.empty()) {
    return invalid("clients", "key_file beside it", "none: without keys nobody can be told apart");
  }
  ServerSettings out;
  MEMSLOT_TRY(out.access, AccessList::parse(s.clients));
  out.heartbeat = std::chrono::milliseconds(s.heartbeat_ms);
  out.garbage_every = std::chrono::seconds(s.garbage_s);
  out.garbage_grace = std::chrono::seconds(s.garbage_grace_s);
  out.payload_cache_bytes = bytes_of_mib(s.payload_cache_mib);
  out.steps.default_policy = s.policy;
  out.policy_file = s.policy_file;
  out.learn_online = s.learn_online;
  out.steps.candidates = static_cast<std::size_t>(s.candidates);
  out.steps.window_tokens = static_cast<std::uint32_t>(s.window_tokens);
  out.jobs.lease = std::chrono::seconds(s.lease_s);
  out.traces = trace_folder(s);
  out.trace_limits.bytes = static_cast<std::uint64_t>(s.trace_mib * kMiB);
  out.trace_limits.age = std::chrono::hours(24 * s.trace_days);
  out.trace_features = s.trace_features;
  out.index = index_folder(s);
  out.training = training_folder(s);
  out.training_program = path_beside_this("memslot-rl");
  return out;
}

Result<ServerOptions> link_options(const ControllerSettings& s, const AccessList& access) {
  ServerOptions out;
  out.endpoint = s.endpoint;
  out.max_pending_bytes = bytes_of_mib(s.max_pending_mib);
  out.max_total_bytes = 4 * out.max_pending_bytes;
  if (!s.key_file.empty()) {
    MEMSLOT_TRY(out.keys, read_keys(s.key_file));
    out.allowed_clients = access.keys();
  }
  return out;
}

}  // namespace memslot
