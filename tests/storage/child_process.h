#pragma once
// Runs the program bank_child. A process of its own, not only a fork: RocksDB's threads do not come
// along in a fork.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

extern char** environ;  // NOLINT: POSIX

namespace memslot {

class ChildProcess {
 public:
  ChildProcess(std::string mode, std::string bank, std::string number = "1") {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    ::posix_spawn_file_actions_addclose(&actions, ends[0]);
    std::string program = BANK_CHILD;
    std::array<char*, 5> arguments = {program.data(), mode.data(), bank.data(), number.data(),
                                      nullptr};
    EXPECT_EQ(::posix_spawn(&pid_, BANK_CHILD, &actions, nullptr, arguments.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    output_ = ends[0];
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess() {
    if (pid_ > 0) kill_and_wait();
    ::close(output_);
  }
  pid_t pid() const { return pid_; }

  // The next line of its output, without the newline; "" at the end.
  std::string line() {
    std::string text;
    char c = 0;
    while (::read(output_, &c, 1) == 1 && c != '\n') text.push_back(c);
    return text;
  }
  void kill_and_wait() {
    ::kill(pid_, SIGKILL);
    wait();
  }
  // Its exit status, or minus the signal that ended it.
  int wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int output_ = -1;
};

}  // namespace memslot
