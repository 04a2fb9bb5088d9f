// bank_child MODE BANK NUMBER: what tests do to a bank in a process of its own.
//   hold     opens it, prints "open", waits to be killed
//   log      publishes twenty versions and leaves without closing, so that the log stays
//   limit    lets a log write fail (file size limit), then goes on; the exit status names the step
//   backup   lets a backup to BANK-saved fail in the middle, then makes it; the status as above
//   restore  lets restoring from BANK/../saved fail in the middle, then makes BANK; status as above
//   lock     holds the lock on a directory, prints "locked", waits to be killed
//   publish  publishes memories for ever and prints each acknowledgement; NUMBER is the round
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "storage/directory_lock.h"
#include "storage/memory_bank.h"
#include "storage/open_store.h"
#include "tests/storage/crash_memories.h"

namespace memslot {
namespace {

constexpr TimePoint kNever = TimePoint::max();

int hold() {
  std::puts("open");
  std::fflush(stdout);
  ::pause();
  return 0;
}

int leave_log(BankStore& store) {
  std::string head;
  for (int i = 0; i < 20; ++i) {
    const auto token = std::string("token").append(std::to_string(i));
    if (!store.publish("r", head, token, std::string(500, 'm'), kNever)) ::_exit(1);
    head = token;
  }
  ::_exit(0);
}

int meet_limit(BankStore& store) {
  std::signal(SIGXFSZ, SIG_IGN);
  if (!store.publish("r", "", "a", "m", kNever)) return 11;
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  const auto before = limit.rlim_cur;
  limit.rlim_cur = 50'000;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const auto failed = store.publish("r", "a", "b", std::string(100'000, 'm'), kNever);
  if (failed || failed.error().code != ErrorCode::kIndeterminate) return 12;
  if (store.put_payload("t", std::vector<std::byte>(100'000), kNever)) return 13;
  const auto head = store.head("r", kNever);
  if (!head || head.value().token != "a") return 14;
  limit.rlim_cur = before;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  return store.publish("r", "a", "b", "m", kNever) ? 0 : 15;
}

// No file of the process may grow over 20 kB while it lives.
class FileLimit {
 public:
  FileLimit() {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit low = before_;
    low.rlim_cur = 20'000;
    ::setrlimit(RLIMIT_FSIZE, &low);
  }
  ~FileLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;

 private:
  rlimit before_{};
};

int meet_limit_in_backup(BankStore& store, const std::string& to) {
  if (!store.put_payload("t", std::vector<std::byte>(500'000, std::byte{1}), kNever)) return 11;
  if (!store.compact(kNever)) return 12;  // out of the log, into a file
  {
    const FileLimit limit;
    if (store.backup(to, kNever)) return 13;
    if (std::filesystem::exists(to)) return 14;
    std::filesystem::create_directory(to);
    if (store.backup(to, kNever)) return 15;
    if (!std::filesystem::is_empty(to)) return 16;
  }
  return store.backup(to, kNever) ? 0 : 17;
}

int meet_limit_in_restore(const std::filesystem::path& to) {
  namespace fs = std::filesystem;
  const std::string from = to.parent_path() / "saved", remains = to.string() + ".restoring";
  {
    const FileLimit limit;
    if (restore_store(from, to)) return 11;
    if (fs::exists(to) || fs::exists(remains)) return 12;
    fs::create_directory(to);
    if (restore_store(from, to)) return 13;
    if (!fs::is_empty(to) || fs::exists(remains)) return 14;
  }
  return restore_store(from, to) ? 0 : 15;
}

int hold_lock(const std::string& directory) {
  const auto lock = DirectoryLock::take(directory);
  if (!lock) return 11;
  std::puts("locked");
  std::fflush(stdout);
  ::pause();
  return 0;
}

int publish_for_ever(BankStore& store, const Clock& clock, int round) {
  MemoryBank bank(store, clock);
  for (int i = 0;; ++i) {
    const CrashMemory memory(round, i);
    const auto head = bank.head(memory.draft.meta.ref, kNever);
    MemoryDraft draft = memory.draft;
    if (head) draft.expected = head.value().token;
    const auto published = bank.publish_memory(draft, kNever);
    if (!published || published.value().conflict()) return 3;
    std::printf("%s %s\n", draft.meta.ref.id.c_str(), draft.meta.token.c_str());
    std::fflush(stdout);
  }
}

int run(const std::string& mode, const std::string& directory, int number) {
  if (mode == "restore") return meet_limit_in_restore(directory);
  if (mode == "lock") return hold_lock(directory);
  const SystemClock clock;
  const auto store = open_store(directory, {}, clock);
  if (!store) {
    std::fprintf(stderr, "bank_child: %s\n", store.error().message.c_str());
    return 2;
  }
  if (mode == "hold") return hold();
  if (mode == "log") return leave_log(*store.value());
  if (mode == "limit") return meet_limit(*store.value());
  if (mode == "backup") return meet_limit_in_backup(*store.value(), directory + "-saved");
  if (mode == "publish") return publish_for_ever(*store.value(), clock, number);
  return 64;
}

}  // namespace
}  // namespace memslot

int main(int argc, char** argv) {
  return argc == 4 ? memslot::run(argv[1], argv[2], std::atoi(argv[3])) : 64;
}
