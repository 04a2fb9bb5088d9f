// bank_child MODE BANK NUMBER: what tests do to a bank in a process of its own.
//   hold     opens it, prints "open", waits to be killed
//   log      publishes twenty versions and leaves without closing, so that the log stays
//   limit    lets a log write fail (file size limit), then goes on; the exit status names the step
//   backup   lets a backup to BANK-saved fail in the middle, then makes it; the status as above
//   publish  publishes memories for ever and prints each acknowledgement; NUMBER is the round
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

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

int meet_limit_in_backup(BankStore& store, const std::string& to) {
  std::signal(SIGXFSZ, SIG_IGN);
  if (!store.put_payload("t", std::vector<std::byte>(500'000, std::byte{1}), kNever)) return 11;
  if (!store.compact(kNever)) return 12;  // out of the log, into a file
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  const auto before = limit.rlim_cur;
  limit.rlim_cur = 20'000;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  if (store.backup(to, kNever)) return 13;
  if (std::filesystem::exists(to)) return 14;
  std::filesystem::create_directory(to);
  if (store.backup(to, kNever)) return 15;
  if (!std::filesystem::is_empty(to)) return 16;
  limit.rlim_cur = before;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  return store.backup(to, kNever) ? 0 : 17;
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
