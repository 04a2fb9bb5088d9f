#include "rl/report/comparison_report.h"

#include "rl/report/page.h"
#include "rl/report/plots.h"
#include "rl/report/training_log.h"

namespace memslot {
namespace {

using nlohmann::json;

json pair_of(const Interval& i) { return {i.low, i.high}; }

json json_of_section(const Section& s) {
  if (!s.absent.empty()) return {{"absent", s.absent}};
  json selectors = json::object(), seeds = json::array();
  for (const Compared& c : s.selectors) {
    selectors[c.name] = json_of(c.score);
    if (c.name == "policy") continue;
    selectors[c.name]["policy_lead"] = c.lead;
    selectors[c.name]["policy_lead_ci95"] = pair_of(c.lead_ci95);
  }
  for (const Score& seed : s.seeds) seeds.push_back(json_of(seed));
  return {{"streams", s.selectors.empty() ? 0 : s.selectors[0].score.streams.size()},
          {"selectors", selectors},
          {"policy_seeds", seeds},
          {"nearest",
           {{"window_tokens", s.nearest.window_tokens},
            {"threshold", s.nearest.threshold},
            {"validation_gain", s.nearest.validation_gain}}}};
}

std::string percent(double share) { return short_number(100 * share) + " %"; }

std::string interval(const Interval& i) {
  return "[" + short_number(i.low) + ", " + short_number(i.high) + "]";
}

Table selectors_table(const Section& s, const std::map<std::string, double>& decision_us) {
  Table table{{"selector", "net gain", "95 %", "regret", "accuracy", "abstention", "swaps/100",
               "policy's lead", "95 %", "decision, us"},
              {}};
  for (const Compared& c : s.selectors) {
    const bool own = c.name == "policy";
    const auto time = decision_us.find(c.name);
    table.rows.push_back({c.name, short_number(c.score.mean_gain), interval(c.score.ci95),
                          short_number(c.score.regret), percent(c.score.accuracy),
                          percent(c.score.abstention), short_number(c.score.swaps_per_100),
                          own ? "" : short_number(c.lead), own ? "" : interval(c.lead_ci95),
                          time == decision_us.end() ? "-" : short_number(time->second)});
  }
  return table;
}

std::string bars(const Section& s, const std::string& title) {
  BarPlot plot{title, "nats a token", {}};
  for (const Compared& c : s.selectors) {
    plot.bars.push_back({c.name, c.score.mean_gain, std::pair(c.score.ci95.low, c.score.ci95.high),
                         c.name == "policy"});
  }
  return svg(plot);
}

std::string share_bars(const Section& s, const std::string& title, double Score::*value) {
  BarPlot plot{title, "%", {}};
  for (const Compared& c : s.selectors) {
    plot.bars.push_back({c.name, 100 * (c.score.*value), std::nullopt, c.name == "policy"});
  }
  return svg(plot);
}

std::string section_html(const Section& s, const std::string& title,
                         const std::map<std::string, double>& decision_us) {
  std::string out = "<h2>" + escaped(title) + "</h2>";
  if (!s.absent.empty())
    return out + "<p class=\"soft\">Not measured: " + escaped(s.absent) + ".</p>";
  return out +
         html_plots({bars(s, "Net gain"),
                     share_bars(s, "Abstention on uncovered steps", &Score::abstention),
                     share_bars(s, "Steps with the oracle's action", &Score::accuracy)}) +
         html(selectors_table(s, decision_us)) + "<p class=\"soft\">Nearest key: window of " +
         std::to_string(s.nearest.window_tokens) + " tokens, threshold " +
         short_number(static_cast<double>(s.nearest.threshold)) +
         ", tuned on validation. Intervals: bootstrap over streams clustered by source.</p>";
}

std::string targets_html(const Comparison& c) {
  std::string out =
      "<div class=\"scroll\"><table><thead><tr><th>target</th><th>figure</th>"
      "<th>bound</th><th></th></tr></thead><tbody>";
  for (const Target& t : c.targets) {
    out += "<tr><td>" + escaped(t.name) + "</td><td>" + short_number(t.figure) + "</td><td>" +
           (t.at_least ? "&ge; " : "&le; ") + short_number(t.bound) + "</td><td class=\"" +
           (t.met ? "good\">met" : "bad\">missed") + "</td></tr>";
  }
  return out + "</tbody></table></div>";
}

Table uncovered_table(const Section& s) {
  Table table{
      {"selector", "abstention", "NLL of the corpus over base's", "NLL of prose over base's"}, {}};
  for (const Compared& c : s.selectors) {
    table.rows.push_back({c.name, percent(c.score.abstention), percent(c.score.corpus_nll),
                          percent(c.score.prose_nll)});
  }
  return table;
}

}  // namespace

json json_of(const Comparison& c) {
  json out = json_of_section(c.recompute);
  for (auto& [name, us] : c.decision_us) out["selectors"][name]["decision_us"] = us;
  out["modes"] = {{"activated", json_of_section(c.activated)}, {"async", json_of_section(c.async)}};
  out["prompt"] = json_of_section(c.prompt);
  out["continuation"] = json_of_section(c.continuation);
  out["control"] = json_of_section(c.control);
  out["covered"] = {{"policy_lead_over_nearest", c.covered_lead},
                    {"ci95", pair_of(c.covered_ci95)},
                    {"tie", c.tie}};
  out["targets"] = json::array();
  for (const Target& t : c.targets) {
    out["targets"].push_back({{"name", t.name},
                              {"figure", t.figure},
                              {"bound", t.bound},
                              {"at_least", t.at_least},
                              {"met", t.met}});
  }
  out["seeds_meet_targets"] = c.seeds_meet_targets;
  return out;
}

std::string page_of(const Comparison& c, const json& about) {
  std::size_t good = 0;
  for (const bool met : c.seeds_meet_targets) good += met ? 1 : 0;
  std::string body = "<p class=\"soft\">" + escaped(about.value("split", "")) +
                     " streams of gain table " + escaped(about.value("table", "").substr(0, 12)) +
                     ", " + std::to_string(c.recompute.seeds.size()) +
                     " seed(s) of one training; the policy's figures are their mean.</p>";
  body += "<h2>Targets</h2>" + targets_html(c) + "<p>" + std::to_string(good) + " of " +
          std::to_string(c.seeds_meet_targets.size()) + " seeds meet all of them by themselves.";
  body += c.tie
              ? " On covered steps the policy and nearest key tie (within 2 %): the policy's lead "
                "comes from abstaining."
              : "";
  body += " Lead over nearest key on covered steps: " + short_number(c.covered_lead) + " " +
          interval(c.covered_ci95) + " nats a token.</p>";
  body += section_html(c.recompute, "Streams, recompute", c.decision_us);
  if (c.recompute.absent.empty())
    body += "<h2>Uncovered text</h2>" + html(uncovered_table(c.recompute));
  body += section_html(c.activated, "Streams, activated", {}) +
          section_html(c.async, "Streams, async (one step late)", {}) +
          section_html(c.prompt, "Prompt only", {}) +
          section_html(c.continuation, "Unseen continuations of known sources", {}) +
          section_html(c.control, "Control text", {});
  return html_page("The policy beside rules and references", body);
}

}  // namespace memslot
