#pragma once
// The controller's settings, as file, environment and command line name them (config.h of base).
//
// Threads: values.
#include <cstdint>
#include <string>
#include <vector>

#include "controller/link/server.h"
#include "shared/base/config.h"
#include "shared/transport/zmq_channel.h"

namespace memslot {

struct ControllerSettings {
  std::string bank = "memslot-bank";
  std::string endpoint = "tcp://127.0.0.1:7400";
  std::string restore{};
  std::string policy = "auto";
  std::string policy_file{};
  bool learn_online = false;
  std::string index = "auto";
  std::string traces = "auto";
  std::int64_t trace_mib = 1024;
  std::int64_t trace_days = 30;
  bool trace_features = true;
  std::string training = "auto";
  std::string key_file{};
  std::vector<std::string> clients{};
  std::string http = "auto";
  std::string http_tokens{};
  std::string log_level = "info";
  std::int64_t quota_mib = 0;
  std::int64_t heartbeat_ms = 1000;
  std::int64_t candidates = 32;
  std::int64_t window_tokens = 32;
  std::int64_t payload_cache_mib = 256;
  std::int64_t max_pending_mib = 328;
  std::int64_t lease_s = 30;
  std::int64_t garbage_s = 600;
  std::int64_t garbage_grace_s = 3600;
};

// Where the index's copy goes; "": nowhere.
std::string index_folder(const ControllerSettings& settings);

// Where the record of generations goes; "": nowhere.
std::string trace_folder(const ControllerSettings& settings);

// Where gain tables and trainings of policies are; "": nowhere.
std::string training_folder(const ControllerSettings& settings);

ConfigTable settings_table(ControllerSettings& settings);

// kInvalidArgument: a policy or client line that is not one; errors of read_keys().
Result<ServerSettings> server_settings(const ControllerSettings& settings);
Result<ServerOptions> link_options(const ControllerSettings& settings, const AccessList& access);

}  // namespace memslot
