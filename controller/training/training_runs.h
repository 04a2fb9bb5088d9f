#pragma once
// Trainings of the policy, offline, from gain tables: each is the program `memslot-rl train` in a
// process of its own, and after it `memslot-rl eval` on the streams that it has not seen.
//
//   FOLDER/tables/NAME.safetensors    gain tables (docs/formats/gains.md)
//   FOLDER/runs/NAME/run.json         what was asked for, and how it ended
//                   /policy.safetensors, .state, .curve.jsonl, .html    (docs/formats/training.md)
//                   /report/report.json, report.html
//                   /log              what the programs said
//   FOLDER/comparisons/NAME.json      reports of `memslot eval` made elsewhere
//
// One training at a time. One that was stopped, or whose controller ended, goes on where it was
// when it is started again under its name with the same table and options.
//
// Errors:  kUnavailable (no folder), kInvalidArgument (names, options), kNotFound, kConflict,
//          kNoSpace, kIo.
// Threads: any, but one at a time for what changes something (start, stop, remove), and for tables.
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "controller/training/child_process.h"
#include "shared/base/clock.h"
#include "shared/base/error.h"

namespace memslot {

struct TrainingRun {
  std::string name, table;
  std::map<std::string, std::string> options;  // of memslot train, without dashes: learning_rate
  std::string state;                           // "running", "done", "stopped", "failed"
  std::string message;                         // what it is at, or why it failed
  std::int64_t started_unix_ms = 0;
  std::uint64_t update = 0;  // of its last look
  bool policy = false;       // there is one to load
};

class TrainingRuns {
 public:
  // `folder` "": every call is refused. `program`: the path of memslot-rl. `clock` must outlive it.
  TrainingRuns(std::string folder, std::string program, const Clock& clock);
  // The one under way is asked to end; it saves what it has learned.
  ~TrainingRuns();
  TrainingRuns(const TrainingRuns&) = delete;
  TrainingRuns& operator=(const TrainingRuns&) = delete;

  const std::string& folder() const { return folder_; }
  Result<std::vector<std::string>> tables() const;  // ascending
  // kCorruption: `bytes` are no gain table. One of the same name is replaced.
  Status add_table(const std::string& name, std::string_view bytes);

  Result<std::vector<TrainingRun>> runs() const;  // oldest first
  // Its name; `name` "": made from the table's. kConflict: one is under way, or `name` is that of a
  // training which has saved something and is done, or of another table or other options.
  Result<std::string> start(const std::string& table, const std::string& name,
                            std::map<std::string, std::string> options);
  Status stop(const std::string& name);  // kConflict: it is not under way. Ends soon after
  Status remove(const std::string& name);

  Result<std::string> policy(const std::string& name) const;  // the checkpoint's bytes
  // The JSON lines of its curve, of a long one the first and the newest; none yet: empty.
  Result<std::vector<std::string>> curve(const std::string& name) const;
  // Names and JSON reports, ascending.
  Result<std::vector<std::pair<std::string, std::string>>> comparisons() const;

 private:
  struct Active {
    TrainingRun run;
    ChildProcess child;
  };

  std::string run_folder(const std::string& name) const { return folder_ + "/runs/" + name; }
  Status usable() const;
  Status startable(const TrainingRun& run, bool resume) const;
  Result<TrainingRun> read(const std::string& name) const;
  Status write(const TrainingRun& run) const;
  std::string stopped_message(const std::string& name) const;
  std::string free_name(const std::string& table) const;
  void train(Active& active, bool resume);
  TrainingRun trained(Active& active, bool resume);
  std::string compared(Active& active);

  const std::string folder_, program_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::unique_ptr<Active> active_;  // the one under way; it and its `run` guarded by mutex_
  std::thread thread_;              // guarded by mutex_: of the last one started
};

}  // namespace memslot
