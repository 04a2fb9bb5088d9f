// The program itself: its ready line, its exit codes, its end.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <string>
#include <vector>

#include "shared/base/error.h"
#include "storage/open_store.h"
#include "tests/controller/memories.h"
#include "tests/support/temporary_folder.h"

extern char** environ;  // NOLINT: POSIX

namespace memslot {
namespace {

using testing_support::TemporaryFolder;

class Program {
 public:
  explicit Program(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), CONTROLLER_PROGRAM);
    ::setenv("MEMSLOT_CONTROLLER_HTTP", "off", /*overwrite=*/1);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    ::posix_spawn_file_actions_addclose(&actions, ends[0]);
    EXPECT_EQ(::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    output_ = ends[0];
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (pid_ > 0) end(SIGKILL);
    ::close(output_);
  }
  std::string line() {
    std::string text;
    char c = 0;
    while (::read(output_, &c, 1) == 1 && c != '\n') text.push_back(c);
    return text;
  }
  // Its exit status, or minus the signal that ended it.
  int end(int signal) {
    if (signal != 0) ::kill(pid_, signal);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int output_ = -1;
};

class ControllerProgram : public testing::Test {
 protected:
  std::vector<std::string> on(const std::string& bank, const std::string& endpoint) {
    return {"--bank", folder_.path() + "/" + bank, "--endpoint", endpoint, "--log-level", "warn"};
  }
  std::string ipc(const std::string& name) { return "ipc://" + folder_.path() + "/" + name; }
  TemporaryFolder folder_;
};

TEST_F(ControllerProgram, SaysThatItIsReadyAndEndsOnRequest) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Program program(on("bank", ipc("link")));
    const std::string ready = program.line();
    EXPECT_EQ(ready.find("memslot-controller ready endpoint=" + ipc("link") + " bank="), 0u)
        << ready;
    EXPECT_EQ(program.end(signal), 0);
  }
}

TEST_F(ControllerProgram, NamesThePortThatItTook) {
  Program program(on("bank", "tcp://127.0.0.1:0"));
  const std::string ready = program.line();
  EXPECT_EQ(ready.find("memslot-controller ready endpoint=tcp://127.0.0.1:"), 0u) << ready;
  EXPECT_EQ(ready.find("127.0.0.1:0 "), std::string::npos) << ready;
}

TEST_F(ControllerProgram, RefusesABankOrAnEndpointThatAnotherHolds) {
  Program first(on("bank", ipc("link")));
  first.line();
  Program same_bank(on("bank", ipc("other")));
  EXPECT_FALSE(same_bank.line().empty());
  EXPECT_EQ(same_bank.end(0), exit_code(ErrorCode::kBusy));
  Program same_endpoint(on("bank2", ipc("link")));
  EXPECT_FALSE(same_endpoint.line().empty());
  EXPECT_EQ(same_endpoint.end(0), exit_code(ErrorCode::kBusy));
  EXPECT_EQ(first.end(SIGTERM), 0);
}

TEST_F(ControllerProgram, RefusesAPortThatAnotherHolds) {
  Program first(on("bank", "tcp://127.0.0.1:0"));
  const std::string ready = first.line();
  const std::size_t from = ready.find("tcp://");
  ASSERT_NE(from, std::string::npos);
  Program second(on("bank2", ready.substr(from, ready.find(' ', from) - from)));
  EXPECT_EQ(second.end(0), exit_code(ErrorCode::kBusy));
}

// More keys than are indexed in a moment: they are read once, however the process ends.
TEST_F(ControllerProgram, HasItsIndexAgainAfterBeingKilled) {
  constexpr unsigned kMemories = 21;
  {
    SystemClock clock;
    const auto store = open_store(folder_.path() + "/bank", {}, clock).value();
    TestBank bank(store.get());
    std::mt19937 rng(1);
    for (unsigned i = 0; i < kMemories; ++i) {
      bank.publish({.id = numbered(i), .keys = keys_around(centre_of(i), 500, 0.2f, rng)});
    }
  }
  const auto start = [&](int signal) {
    auto arguments = on("bank", ipc("link"));
    arguments.back() = "info";
    Program program(arguments);
    std::string text, line;
    do {
      line = program.line();
      text += line + "\n";
    } while (line.find("ready") == std::string::npos && !line.empty());
    EXPECT_EQ(program.end(signal), signal == SIGTERM ? 0 : -signal);
    return text.find("index: 21 of 21 memories as they were kept") != std::string::npos;
  };
  EXPECT_FALSE(start(SIGKILL));
  EXPECT_TRUE(start(SIGKILL));
  EXPECT_TRUE(start(SIGTERM));
  EXPECT_TRUE(start(SIGTERM));
}

TEST_F(ControllerProgram, StartsAgainAfterBeingKilled) {
  for (int i = 0; i < 3; ++i) {
    Program program(on("bank", ipc("link")));
    EXPECT_NE(program.line().find("ready"), std::string::npos);
    EXPECT_EQ(program.end(SIGKILL), -SIGKILL);
  }
}

TEST_F(ControllerProgram, ExplainsWrongSettings) {
  Program unknown({"--bannk", "x"});
  EXPECT_NE(unknown.line().find("--bannk"), std::string::npos);
  EXPECT_EQ(unknown.end(0), 2);
  Program policy({"--policy", "best"});
  EXPECT_NE(policy.line().find("best"), std::string::npos);
  EXPECT_EQ(policy.end(0), 2);
  Program open({"--endpoint", "tcp://0.0.0.0:0", "--bank", folder_.path() + "/bank"});
  EXPECT_FALSE(open.line().empty());
  EXPECT_EQ(open.end(0), exit_code(ErrorCode::kPermission));
  Program help({"--help-config"});
  EXPECT_EQ(help.line().find("| name |"), 0u);
  EXPECT_EQ(help.end(0), 0);
  Program version({"--version"});
  EXPECT_EQ(version.line().find("memslot-controller "), 0u);
  EXPECT_EQ(version.end(0), 0);
}

TEST_F(ControllerProgram, APolicyFileThatIsNoneIsNamedAndTheBankIsLeftAsItWas) {
  const std::string absent = folder_.path() + "/absent", broken = folder_.path() + "/broken";
  std::ofstream(broken) << "no checkpoint";
  const auto refused = [&](const std::string& file, ErrorCode code) {
    auto arguments = on("bank", ipc("link"));
    arguments.insert(arguments.end(), {"--policy-file", file});
    Program program(arguments);
    EXPECT_NE(program.line().find(file), std::string::npos);
    EXPECT_EQ(program.end(0), exit_code(code));
  };
  refused(absent, ErrorCode::kNotFound);
  refused(broken, ErrorCode::kCorruption);
  Program without(on("bank", ipc("link")));
  EXPECT_NE(without.line().find("ready"), std::string::npos);
  EXPECT_EQ(without.end(SIGTERM), 0);
}

TEST_F(ControllerProgram, RefusesToRestoreFromNothing) {
  Program program({"--bank", folder_.path() + "/bank", "--restore", folder_.path() + "/absent"});
  EXPECT_FALSE(program.line().empty());
  EXPECT_EQ(program.end(0), exit_code(ErrorCode::kNotFound));
}

}  // namespace
}  // namespace memslot
