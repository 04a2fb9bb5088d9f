// A StreamSet as docs/formats/streams.md has it.
#include <nlohmann/json.hpp>

#include "rl/streams.h"
#include "rl/table_names.h"
#include "shared/base/json_dump.h"

namespace memslot {

using nlohmann::ordered_json;

std::string StreamSet::json() const {
  const StreamOptions& o = options;
  ordered_json out = {{"format", "memslot-streams-1"},
                      {"model", o.model},
                      {"seed", o.seed},
                      {"learn_config", o.learn_config},
                      {"step_tokens", o.step_tokens},
                      {"memory_tokens", o.memory_tokens},
                      {"held_back_tokens", o.held_back_tokens},
                      {"sources", ordered_json::array()},
                      {"memories", ordered_json::array()},
                      {"streams", ordered_json::array()}};
  for (std::size_t i = 0; i < sources.size(); ++i) {
    out["sources"].push_back({{"name", sources[i].name},
                              {"title", titles[i]},
                              {"split", name_in(kSplitNames, sources[i].split)},
                              {"has_memory", sources[i].has_memory}});
  }
  for (const PlannedMemory& m : memories) {
    out["memories"].push_back({{"id", m.id},
                               {"source", m.source},
                               {"first_word", m.first_word},
                               {"words", m.words},
                               {"first_token", m.first_token},
                               {"tokens", m.tokens},
                               {"text", m.text}});
  }
  for (const PlannedStream& s : streams) {
    ordered_json tokens = ordered_json::array(), of = ordered_json::array(),
                 covered = ordered_json::array();
    for (const TableStep& step : s.table.steps) {
      tokens.push_back(step.tokens);
      of.push_back(step.source);
      covered.push_back(step.covered);
    }
    out["streams"].push_back({{"id", s.table.id},
                              {"kind", name_in(kStreamKindNames, s.table.kind)},
                              {"split", name_in(kSplitNames, s.table.split)},
                              {"ids", s.ids},
                              {"tokens", tokens},
                              {"sources", of},
                              {"covered", covered}});
  }
  return dump(out, 1) + "\n";
}

}  // namespace memslot
