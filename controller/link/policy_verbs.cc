// Admin: the verbs "policy.*" of docs/formats/tasks.md.
#include <nlohmann/json.hpp>

#include "controller/link/admin.h"
#include "controller/link/arguments.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const PolicySnapshot& snapshot) {
  const Checkpoint& c = snapshot.checkpoint;
  return {{"digest", snapshot.digest},
          {"update", c.update},
          {"model", c.task.model},
          {"layer", c.task.layer},
          {"window_tokens", c.task.window_tokens},
          {"candidates", c.task.candidates},
          {"swap_cost", c.task.swap_cost},
          {"generic_gain", c.task.generic_gain},
          {"feature_version", c.feature_version},
          {"key_dim", c.scorer.key_dim},
          {"width", c.whitening.dim()},
          {"whitening", snapshot.space},
          {"config_digest", c.config_digest},
          {"notes", c.notes}};
}

Json json_of(const PolicyRecord& record) {
  return {{"digest", record.digest},
          {"origin", record.origin},
          {"number", record.number},
          {"update", record.update},
          {"created_unix_ms", record.created_unix_ms}};
}

Json json_of(const LearningView& view) {
  const OnlineCounts& c = view.counts;
  Json out = {{"episodes", c.episodes},       {"steps", c.steps},       {"held_out", c.held_out},
              {"refused", c.refused},         {"updates", c.updates},   {"snapshots", c.snapshots},
              {"reverts", c.reverts},         {"set_back", c.set_back}, {"shifts", c.shifts},
              {"mean_reward", c.mean_return}, {"entropy", c.entropy},   {"queued", view.queued},
              {"dropped", view.dropped},      {"strange", view.strange}};
  if (!view.last_look) return out;
  out["guard"] = {{"acting", view.last_look->value_good},
                  {"other", view.last_look->value_new},
                  {"standard_error", view.last_look->standard_error},
                  {"steps", view.last_look->steps},
                  {"effective_steps", view.last_look->effective_steps},
                  {"unjudged", view.last_look->unjudged}};
  return out;
}

}  // namespace

std::vector<wire::OpenSession> Admin::spaces() const {
  std::vector<wire::OpenSession> out;
  for (const auto& [id, peer] : p_.peers.all()) {
    if (!peer.is_generator() || peer.hello.slots.empty()) continue;
    wire::OpenSession session;
    session.model = peer.hello.model;
    session.slots = peer.hello.slots;
    out.push_back(std::move(session));
  }
  return out;
}

// Against what the controller knows: the connected generators' lowest slots. None: nothing to say.
Result<Admin::Answer> Admin::load_checkpoint(const std::string& bytes,
                                             const std::vector<wire::OpenSession>& spaces) {
  auto checkpoint = Checkpoint::parse(bytes);
  if (!checkpoint) return checkpoint.error().with_context("policy.load");
  Status fits = ok();
  for (const wire::OpenSession& session : spaces) {
    fits = check_fits(checkpoint.value(), space_of(session, session.slots[lowest_slot(session)]));
    if (fits) break;
  }
  MEMSLOT_TRY(fits);
  MEMSLOT_TRY(const auto made, p_.learned.shelf->publish(bytes, "file", "", quick_end()));
  return text_answer(dump(Json{{"policy", json_of(*made)}}));
}

Result<Admin::Job> Admin::load_policy(const Access& access, SharedBytes file) {
  MEMSLOT_TRY(access.check_sees_everything("policy.load"));
  if (file == nullptr) return invalid("policy.load", "a checkpoint as part 0", "none");
  return Job([this, file = std::move(file), spaces = spaces()]() -> Result<Answer> {
    const std::string bytes(reinterpret_cast<const char*>(file->data()), file->size());
    return load_checkpoint(bytes, spaces);
  });
}

Result<Admin::Job> Admin::unload_policy(const Access& access) {
  MEMSLOT_TRY(access.check_sees_everything("policy.unload"));
  return Job([this]() -> Result<Answer> {
    MEMSLOT_TRY(p_.learned.shelf->retire(quick_end()));
    return text_answer(dump(Json{{"policy", Json()}}));
  });
}

Result<Admin::Job> Admin::show_policy() {
  return Job([this]() -> Result<Answer> {
    const SnapshotPtr head = p_.learned.shelf->head();
    Json out = {{"policy", head == nullptr ? Json() : json_of(*head)},
                {"number", p_.learned.shelf->head_number()},
                {"learning", Json()}};
    if (p_.learned.learning != nullptr) out["learning"] = json_of(p_.learned.learning->view());
    return text_answer(dump(out));
  });
}

// What the session wrote since the last feedback, open or closed.
Result<Admin::Job> Admin::give_feedback(const Access& access, std::uint64_t session, double value) {
  if (!(value >= -1 && value <= 1)) {
    return invalid("policy.feedback value", "-1 to 1", std::to_string(value));
  }
  FeedbackDesk* const desk = p_.learned.desk;
  if (desk == nullptr || p_.learned.learning == nullptr) {
    return Error{ErrorCode::kUnavailable,
                 "policy.feedback: expected a controller that learns (--learn-online), found one "
                 "that does not"};
  }
  Session* const open = p_.sessions.any(session);
  if (open != nullptr && open->recorder && access.sees_all(open->open.namespaces)) {
    if (auto waiting = open->recorder->take_waiting()) {
      desk->put({.session = session,
                 .namespaces = open->open.namespaces,
                 .space = open->learned->space,
                 .key_dim = open->learned->checkpoint.scorer.key_dim,
                 .episode = std::move(*waiting)});
    }
  }
  MEMSLOT_TRY(const auto namespaces, desk->namespaces_of(session));
  if (!access.sees_all(namespaces)) return invisible("session " + std::to_string(session));
  p_.decisions.feedback(session, static_cast<float>(value));
  return Job([this, desk, session, value]() -> Result<Answer> {
    MEMSLOT_TRY(WaitingEpisode waiting, desk->take(session));
    const std::size_t steps = waiting.episode.steps.size();
    auto given = desk->give(waiting, static_cast<float>(value), quick_end());
    if (!given) {
      desk->put(std::move(waiting));  // not judged after all
      return given.error();
    }
    p_.learned.learning->offer(
        {std::move(waiting.episode), /*measured=*/false, waiting.space, given.value()});
    return text_answer(dump(Json{{"session", session}, {"value", value}, {"steps", steps}}));
  });
}

Result<Admin::Job> Admin::policy_verb(const Peer& client, const wire::AdminRequest& admin,
                                      SharedBytes file) {
  MEMSLOT_TRY(Arguments arguments, Arguments::parse(admin.arguments));
  if (admin.verb == "policy.feedback") {
    MEMSLOT_TRY(const std::uint64_t session, arguments.number("session"));
    MEMSLOT_TRY(const double value, arguments.real("value"));
    MEMSLOT_TRY(arguments.finish());
    return give_feedback(client.access, session, value);
  }
  MEMSLOT_TRY(arguments.finish());
  if (admin.verb == "policy.load") return load_policy(client.access, std::move(file));
  if (admin.verb == "policy.unload") return unload_policy(client.access);
  if (admin.verb == "policy.show") return show_policy();
  if (admin.verb == "policy.curves") return policy_curves(client.access.all_namespaces);
  if (admin.verb != "policy.ls") {
    return invalid("verb", "one of docs/formats/tasks.md", admin.verb);
  }
  return Job([this]() -> Result<Answer> {
    MEMSLOT_TRY(const auto records, p_.learned.shelf->list(quick_end()));
    Json out = Json::array();
    for (const PolicyRecord& record : records) out.push_back(json_of(record));
    return text_answer(dump(Json{{"policies", std::move(out)}}));
  });
}

}  // namespace memslot
