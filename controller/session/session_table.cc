#include "controller/session/session_table.h"

#include <algorithm>

namespace memslot {
namespace {

constexpr std::size_t kRememberedClosed = 1000;

Error unknown_session(std::uint64_t session) {
  return {ErrorCode::kNotFound, "session: expected an open one, found " + std::to_string(session)};
}

}  // namespace

bool ResidentView::apply(const wire::ResidentDelta& delta) {
  if (delta.base_epoch == 0) {
    set = {delta.added.begin(), delta.added.end()};
    epoch = delta.epoch;
    known = true;
    return true;
  }
  if (!known || delta.base_epoch != epoch) {
    known = false;
    set.clear();
    return false;
  }
  for (const wire::Resident& gone : delta.removed) set.erase(gone);
  set.insert(delta.added.begin(), delta.added.end());
  epoch = delta.epoch;
  return true;
}

bool Session::sees(std::string_view ns) const {
  return std::find(open.namespaces.begin(), open.namespaces.end(), ns) != open.namespaces.end();
}

Result<SessionTable::Opened> SessionTable::open(const PeerId& peer,
                                                const wire::OpenSession& request) {
  const auto found = sessions_.find(request.session);
  if (found != sessions_.end()) {
    Session& session = found->second;
    const bool same = session.open.incarnation == request.incarnation;
    if (!same) {
      return Error{ErrorCode::kConflict, "session: expected a number that is free, found " +
                                             std::to_string(request.session) +
                                             " of another generator"};
    }
    session.peer = peer;
    return Opened{&session, false};
  }
  if (sessions_.size() >= limit_) {
    return Error{ErrorCode::kOverloaded,
                 "sessions: expected at most " + std::to_string(limit_) + ", found as many open"};
  }
  Session& session = sessions_[request.session];
  session.open = request;
  session.peer = peer;
  closed_.erase(request.session);
  return Opened{&session, true};
}

Result<Session*> SessionTable::find(const PeerId& peer, std::uint64_t session) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end() || found->second.peer != peer) return unknown_session(session);
  return &found->second;
}

Session* SessionTable::any(std::uint64_t session) {
  const auto found = sessions_.find(session);
  return found == sessions_.end() ? nullptr : &found->second;
}

void SessionTable::close(std::uint64_t session) {
  if (sessions_.erase(session) == 0) return;
  if (closed_.insert(session).second) closed_order_.push_back(session);
  if (closed_order_.size() > kRememberedClosed) {
    closed_.erase(closed_order_.front());
    closed_order_.pop_front();
  }
}

std::size_t SessionTable::drop_peer(const PeerId& peer) {
  return std::erase_if(sessions_, [&](const auto& item) { return item.second.peer == peer; });
}

void SessionTable::rehome(const PeerId& from, const PeerId& to) {
  for (auto& [number, session] : sessions_) {
    if (session.peer == from) session.peer = to;
  }
}

std::size_t SessionTable::count(const PeerId& peer) const {
  return static_cast<std::size_t>(std::count_if(
      sessions_.begin(), sessions_.end(), [&](const auto& i) { return i.second.peer == peer; }));
}

}  // namespace memslot
