#include "controller/training/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

namespace memslot {
namespace {

constexpr int kNice = 10;  // steps and decoding come first

// In the child, between fork and exec: only what is safe in a signal handler.
[[noreturn]] void become(char* const* argv, int log, int parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent)
    _exit(ChildProcess::kNotStarted);  // it ended before it could be waited for
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::signal(SIGPIPE, SIG_DFL);
  const int input = open("/dev/null", O_RDONLY);
  dup2(input, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  close_range(STDERR_FILENO + 1, ~0U, 0);  // the bank's files and the link's sockets
  setpriority(PRIO_PROCESS, 0, kNice);
  execv(argv[0], argv);
  _exit(ChildProcess::kNotStarted);
}

Error failure(const std::string& what) {
  return {ErrorCode::kIo, what + ": " + std::strerror(errno)};
}

}  // namespace

Result<int> ChildProcess::run(std::vector<std::string> words, const std::string& log) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int opened = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (opened < 0) return failure(log);
  // Above the three that it becomes in the child, also where one of those was closed.
  const int file = fcntl(opened, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  close(opened);
  if (file < 0) return failure(log);
  int child = 0;
  {
    const std::lock_guard lock(mutex_);
    if (terminated_) {
      close(file);
      return Error{ErrorCode::kCancelled, words[0] + ": not started"};
    }
    const int parent = getpid();
    child = fork();
    if (child == 0) become(argv.data(), file, parent);
    if (child > 0) pid_ = child;
  }
  close(file);
  if (child < 0) return failure(words[0]);
  // Its number stays its own until it is reaped: under the lock, so that no signal meets another.
  await_end(child);
  const std::lock_guard lock(mutex_);
  pid_ = 0;
  int status = 0;
  if (waitpid(child, &status, 0) != child) return failure(words[0]);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// One that does not heed terminate() is killed.
void ChildProcess::await_end(int child) const {
  constexpr int kLookMs = 500;
  constexpr int kPatience = 20;  // looks
  // (The C library of Debian 12 declares pidfd_open() for C only.)
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  pollfd watched{handle, POLLIN, 0};
  for (int waited = 0; handle >= 0 && poll(&watched, 1, kLookMs) <= 0;) {
    if (terminated() && ++waited == kPatience) ::kill(child, SIGKILL);
  }
  if (handle >= 0) close(handle);
}

void ChildProcess::terminate() {
  const std::lock_guard lock(mutex_);
  terminated_ = true;
  if (pid_ != 0) ::kill(pid_, SIGTERM);
}

bool ChildProcess::terminated() const {
  const std::lock_guard lock(mutex_);
  return terminated_;
}

}  // namespace memslot
