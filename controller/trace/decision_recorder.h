#pragma once
// What the controller itself tells of a trace: each decision with what it rests on, and feedback.
// Noted when it is made; encoded and written by flush(), after the directive is on its way.
//
// Threads: one at a time (the link's).
#include <map>

#include "controller/session/session_table.h"
#include "controller/step/candidates.h"
#include "controller/trace/trace_store.h"

namespace memslot {

class DecisionRecorder {
 public:
  // `features`: with all candidates and the query, without which scores cannot be told again. The
  // store must outlive the recorder.
  DecisionRecorder(TraceStore& store, bool features) : store_(store), features_(features) {}

  void decided(const Session& session, const StepContext& context, std::uint32_t slot,
               const CandidateList& list, const Choice& choice);
  void feedback(std::uint64_t session, float value);
  void flush();
  // Forgets what memories are called in traces of sessions that are open no more.
  void keep_only(const SessionTable& open);

 private:
  TraceStore& store_;
  const bool features_;
  std::map<std::uint64_t, trace::Encoder> encoders_;          // by session
  std::map<std::uint64_t, std::vector<trace::Event>> noted_;  // by session, until the next flush()
};

}  // namespace memslot
