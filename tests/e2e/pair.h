#pragma once
// The two real processes in a folder of their own, and a client on the controller's socket.
//
// The model is the tiny golden one with a tokenizer of single bytes beside it and a longer context,
// so that a pair starts in a moment and needs no download.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "shared/base/rng.h"
#include "shared/transport/rpc_client.h"
#include "shared/transport/zmq_channel.h"
#include "tests/learn/tiny_model.h"
#include "tests/support/temporary_folder.h"

namespace memslot::testing_support {

using nlohmann::json;

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// One of the two programs, started anew as often as wanted.
class Process {
 public:
  Process(std::string program, std::vector<std::string> arguments, std::string log)
      : program_(std::move(program)), arguments_(std::move(arguments)), log_(std::move(log)) {
    // Nobody asks them over HTTP.
    ::setenv("MEMSLOT_CONTROLLER_HTTP", "off", /*overwrite=*/1);
    ::setenv("MEMSLOT_GENERATOR_HTTP", "off", /*overwrite=*/1);
  }
  ~Process() { kill(SIGKILL); }

  // Returns when the ready line is there. Throws after `limit`.
  void start(std::chrono::seconds limit = std::chrono::seconds(60)) {
    const std::string out = log_ + ".out";
    std::remove(out.c_str());
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(::open(out.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600), 1);
      ::dup2(::open(log_.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600), 2);
      std::vector<char*> argv{program_.data()};
      for (std::string& a : arguments_) argv.push_back(a.data());
      argv.push_back(nullptr);
      ::execv(program_.c_str(), argv.data());
      ::_exit(127);
    }
    const auto end = std::chrono::steady_clock::now() + limit;
    while (slurp(out).find(" ready ") == std::string::npos) {
      if (exited()) throw std::runtime_error(program_ + " ended: " + slurp(log_));
      if (std::chrono::steady_clock::now() > end)
        throw std::runtime_error(program_ + " is not ready: " + slurp(log_));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  // Sends the signal and waits for the end. The exit code, or -signal.
  int kill(int signal) {
    if (pid_ <= 0) return 0;
    ::kill(pid_, signal);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  // Runs to the end by itself: the exit code.
  int run_to_end() {
    start_only();
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  bool alive() { return pid_ > 0 && !exited(); }
  std::string log() const { return slurp(log_); }
  std::string output() const { return slurp(log_ + ".out"); }

 private:
  void start_only() {
    const std::string out = log_ + ".out";
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::dup2(::open(out.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600), 1);
    ::dup2(::open(log_.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600), 2);
    std::vector<char*> argv{program_.data()};
    for (std::string& a : arguments_) argv.push_back(a.data());
    argv.push_back(nullptr);
    ::execv(program_.c_str(), argv.data());
    ::_exit(127);
  }
  bool exited() {
    int status = 0;
    if (pid_ <= 0) return true;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
    pid_ = -1;
    return true;
  }
  std::string program_;
  std::vector<std::string> arguments_;
  std::string log_;
  pid_t pid_ = -1;
};

// The tiny model as a folder with a tokenizer and room for `context` tokens.
inline std::string write_tiny_model(const TemporaryFolder& folder, int context = 1024) {
  namespace fs = std::filesystem;
  const std::string to = folder.path() + "/model";
  fs::copy(fixture_dir() + "/llama_tiny_theta10000_hf", to);
  json config = json::parse(slurp(to + "/config.json"));
  config["max_position_embeddings"] = context;
  // No byte is an end: the tests want texts of a known length.
  config.erase("eos_token_id");
  config.erase("bos_token_id");
  std::ofstream(to + "/config.json") << config.dump();
  json vocab = json::object();
  int extra = 0;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const int point = printable ? b : 256 + extra++;
    std::string utf8(1, static_cast<char>(point));
    if (point >= 0x80)
      utf8 = {static_cast<char>(0xc0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3f))};
    vocab[utf8] = b;
  }
  std::ofstream(to + "/vocab.json") << vocab.dump();
  std::ofstream(to + "/merges.txt") << "#version: 0.2\n";
  return to;
}

// Speaks to the controller as the CLI does.
class Client {
 public:
  explicit Client(const std::string& endpoint) {
    ClientOptions options;
    options.endpoint = endpoint;
    RpcOptions rpc;
    rpc.hello.role = wire::PeerRole::kClient;
    rpc.hello.incarnation = random_nonce();
    rpc.hello.build = "test";
    RpcHandlers handlers;
    handlers.on_message = [this](wire::Message m) {
      const auto* event = std::get_if<wire::TaskEvent>(&m.body);
      if (event == nullptr) return;
      const std::lock_guard lock(mutex_);
      events_[m.request].push_back(json::parse(event->event));
    };
    rpc_ = std::make_unique<RpcClient>(must(connect_channel(options)), rpc, handlers);
    rpc_->start();
  }

  Status wait_connected(std::chrono::seconds limit = std::chrono::seconds(30)) {
    return rpc_->wait_connected(std::chrono::steady_clock::now() + limit);
  }
  // The last event of a task; all others in `events`.
  Result<json> task(const std::string& kind, const json& arguments,
                    std::vector<json>* events = nullptr,
                    std::chrono::seconds limit = std::chrono::seconds(60)) {
    const std::uint64_t request = rpc_->new_request();
    auto reply = rpc_->call({request, wire::SubmitTask{kind, arguments.dump()}, {}},
                            std::chrono::steady_clock::now() + limit);
    {
      const std::lock_guard lock(mutex_);
      if (events != nullptr) *events = events_[request];
      events_.erase(request);
    }
    if (!reply) return reply.error();
    return json::parse(std::get<wire::TaskEvent>(reply.value().body).event);
  }
  Result<json> admin(const std::string& verb, const json& arguments,
                     std::chrono::seconds limit = std::chrono::seconds(20)) {
    MEMSLOT_TRY(auto reply, rpc_->call({0, wire::AdminRequest{verb, arguments.dump()}, {}},
                                       std::chrono::steady_clock::now() + limit));
    return json::parse(std::get<wire::AdminReply>(reply.body).result);
  }
  RpcClient& rpc() { return *rpc_; }

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, std::vector<json>> events_;
  std::unique_ptr<RpcClient> rpc_;
};

struct Pair {
  TemporaryFolder folder;
  std::string model;
  std::string endpoint = "ipc://" + folder.path() + "/link";
  Process controller, generator;

  explicit Pair(const std::string& model_path = "",
                std::vector<std::string> generator_arguments = {},
                std::vector<std::string> controller_arguments = {})
      : model(model_path.empty() ? write_tiny_model(folder) : model_path),
        controller(MEMSLOT_CONTROLLER,
                   joined({"--bank", folder.path() + "/bank", "--endpoint", endpoint,
                           // Four of them make a loss: a busy machine must not look like one.
                           "--heartbeat-ms", "500", "--lease-s", "5"},
                          std::move(controller_arguments)),
                   folder.path() + "/controller.log"),
        generator(another_generator("generator", std::move(generator_arguments))) {}

  // One more on the same controller and model; not started yet.
  Process another_generator(const std::string& name, std::vector<std::string> more = {}) const {
    return {MEMSLOT_GENERATOR,
            joined({"--model", model, "--endpoint", endpoint}, joined(small(), std::move(more))),
            folder.path() + "/" + name + ".log"};
  }

  void start() {
    controller.start();
    generator.start();
  }

 private:
  std::vector<std::string> small() const {
    if (model.rfind(folder.path(), 0) != 0) return {};
    return {"--weights", "f32", "--threads", "1"};  // the tiny model
  }
  static std::vector<std::string> joined(std::vector<std::string> a, std::vector<std::string> b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
};

}  // namespace memslot::testing_support
