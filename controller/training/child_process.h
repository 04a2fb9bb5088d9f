#pragma once
// Another program, run to its end: as somebody of low priority, with no input and its output in a
// file.
//
// Operation:   run() starts it and waits. However this process ends meanwhile, the child is told to
//              end too (SIGTERM): Linux tells it when the thread that is in run() is gone.
// Concurrency: run() on one thread, for one program after the other; terminate() on any.
#include <mutex>
#include <string>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

class ChildProcess {
 public:
  static constexpr int kNotStarted = 127;  // exit code of what turned out to be no program

  // `words`: the program's path, then its arguments. `log` is appended to. Its exit code; 128 + the
  // signal that ended it. kIo: it could not be started; kCancelled: terminate() came before.
  Result<int> run(std::vector<std::string> words, const std::string& log);
  void terminate();  // asks it to end, now and whenever; after ten seconds it is killed
  bool terminated() const;

 private:
  void await_end(int child) const;

  mutable std::mutex mutex_;
  int pid_ = 0;              // guarded by mutex_; 0: none runs
  bool terminated_ = false;  // guarded by mutex_
};

}  // namespace memslot
