// A gain table made by memslot-gains through the two real processes, on the tiny model.
#include <gtest/gtest.h>

#include "rl/gain_table.h"
#include "tests/e2e/pair.h"

namespace memslot {
namespace {

using namespace testing_support;

// Words that differ from article to article; about `bytes` long.
std::string words(int seed, std::size_t bytes) {
  static constexpr const char* kParts[] = {"ka", "lo", "mi", "ner", "ost", "pu", "quill", "ram"};
  std::string out;
  for (unsigned i = 0; out.size() < bytes; ++i) {
    const auto pick = [&](unsigned by) {
      return kParts[(i * i * by + static_cast<unsigned>(seed) * (i + 3)) % 8];
    };
    out += pick(5);
    if (i % 3 != 0) out += pick(7);
    out += ' ';
  }
  return out;
}

struct GainsTest : testing::Test {
  Pair pair;
  std::unique_ptr<Client> client;
  std::string folder = pair.folder.path();
  std::string table = folder + "/table";

  void SetUp() override {
    std::ofstream text(folder + "/text");
    for (int i = 0; i < 13; ++i)
      text << " = Article " << i << " = \n \n " << words(i, 500) << "\n \n " << words(i + 50, 250)
           << "\n";
    namespace fs = std::filesystem;
    fs::create_directories(folder + "/prose/prose");
    fs::create_directories(folder + "/prose/control");
    std::ofstream(folder + "/prose/prose/one.txt") << words(90, 300);
    for (const char* name : {"development", "test"}) {
      json passages = json::array();
      for (int i = 0; i < 2; ++i) passages.push_back({{"text", words(91 + i, 120)}});
      std::ofstream(folder + "/prose/control/" + name + ".json")
          << json{{"passages", passages}}.dump();
    }
    pair.start();
    client = std::make_unique<Client>(pair.endpoint);
    must(client->wait_connected());
  }
  std::vector<std::string> arguments(const std::string& text = "text") {
    return {"gains",
            folder + "/" + text,
            table,
            "--prose",
            folder + "/prose",
            "--steps",
            "2",
            "--rank",
            "4",
            "--streams",
            "12",
            "--prompts",
            "4",
            "--continuations",
            "4",
            "--stream-steps",
            "8",
            "--held-back",
            "64",
            "--json",
            "--timeout",
            "5"};
  }
  Process program(const std::vector<std::string>& more = {}, const std::string& text = "text") {
    std::vector<std::string> all = arguments(text);
    all.insert(all.end(), {"--endpoint", pair.endpoint});
    all.insert(all.end(), more.begin(), more.end());
    return {MEMSLOT_GAINS, all, folder + "/gains.log"};
  }
  int run(std::vector<std::string> more = {}, const std::string& text = "text") {
    return program(std::move(more), text).run_to_end();
  }
  std::size_t jobs() { return must(client->admin("jobs.ls", json::object()))["jobs"].size(); }
};

TEST_F(GainsTest, ATableIsMadeAndItsGainsAreThoseOfScore) {
  ASSERT_EQ(run(), 0) << slurp(folder + "/gains.log") << slurp(folder + "/gains.log.out");
  const json said = json::parse(slurp(folder + "/gains.log.out"));
  const GainTable made = must(GainTable::load(table));
  EXPECT_EQ(said["memories"], made.memories.size());
  EXPECT_EQ(made.sources.size(), 13u);
  EXPECT_EQ(made.memories.size(), jobs());
  EXPECT_FALSE(made.generic.empty());
  EXPECT_FALSE(std::filesystem::exists(table + ".rows"));
  const json streams = json::parse(slurp(table + ".streams.json"));
  ASSERT_EQ(streams["streams"].size(), made.streams.size());
  std::set<StreamKind> kinds;
  for (std::size_t i = 0; i < made.streams.size(); i += 5) {
    const TableStream& s = made.streams[i];
    const std::size_t m = i % made.memories.size();
    const json ids = streams["streams"][i]["ids"];
    const json base = must(client->task("score", {{"ids", ids}, {"memory", "base"}}));
    const json with =
        must(client->task("score", {{"ids", ids}, {"memory", made.memories[m].ref.text()}}));
    std::size_t token = 0;
    for (std::size_t t = 0; t < s.steps.size(); ++t) {
      double gain = 0;
      for (std::uint32_t k = 0; k < s.steps[t].tokens; ++k, ++token) {
        gain += with["tokens"][token]["logprob"].get<double>() -
                base["tokens"][token]["logprob"].get<double>();
      }
      EXPECT_NEAR(made.gain_of(s.first + t, m), gain / s.steps[t].tokens, 5e-6) << s.id << " " << t;
    }
  }
  for (const TableStream& s : made.streams) kinds.insert(s.kind);
  EXPECT_EQ(kinds.size(), 4u);

  // Again, as the client's command: nothing is learned anew, and the table is the same.
  const std::string bytes = made.bytes();
  const std::size_t before = jobs();
  std::vector<std::string> by_client = {"--endpoint", pair.endpoint};
  const auto options = arguments();
  by_client.insert(by_client.end(), options.begin(), options.end());
  ASSERT_EQ(Process(MEMSLOT_CLIENT, by_client, folder + "/client.log").run_to_end(), 0)
      << slurp(folder + "/client.log");
  EXPECT_EQ(jobs(), before);
  EXPECT_EQ(must(GainTable::load(table)).bytes(), bytes);
}

TEST_F(GainsTest, FewerCandidatesThanMemoriesAreTheNearestAndTheGenericOnes) {
  ASSERT_EQ(run({"--candidates", "8"}), 0) << slurp(folder + "/gains.log");
  const GainTable made = must(GainTable::load(table));
  ASSERT_GT(made.memories.size(), 8u);
  for (const TableStream& s : made.streams) {
    EXPECT_GE(s.scored.size(), 8u);
    EXPECT_LT(s.scored.size(), made.memories.size());
    for (const TableStep& step : s.steps) {
      for (std::size_t m = 0; m < made.memories.size(); ++m) {
        EXPECT_TRUE(made.memories[m].source != step.source || s.has(m)) << s.id;
      }
    }
  }
}

TEST_F(GainsTest, GeneratorsShareTheWorkAndTheTableIsTheSame) {
  ASSERT_EQ(run(), 0) << slurp(folder + "/gains.log");
  const std::string alone = must(GainTable::load(table)).bytes();
  Process second = pair.another_generator("second");
  second.start();
  ASSERT_EQ(run(), 0) << slurp(folder + "/gains.log");
  EXPECT_EQ(must(GainTable::load(table)).bytes(), alone);
}

// The cache is stale only where a swap came: without one the gains are the table's.
TEST_F(GainsTest, SchedulesAreMeasuredAsSessionsFollowThem) {
  ASSERT_EQ(run(), 0) << slurp(folder + "/gains.log");
  const GainTable made = must(GainTable::load(table));
  const auto stream = std::find_if(made.streams.begin(), made.streams.end(),
                                   [](const auto& s) { return s.kind == StreamKind::kStream; });
  ASSERT_NE(stream, made.streams.end());
  const std::size_t steps = stream->steps.size();
  const std::string memory = made.memories[1].ref.text();
  const auto line = [&](std::size_t first, std::size_t swapped_out) {
    std::vector<std::string> actions(steps - first, memory);
    std::fill(actions.begin() + static_cast<std::ptrdiff_t>(swapped_out - first), actions.end(),
              "base");
    return json{{"stream", stream->id}, {"first", first}, {"actions", actions}}.dump() + "\n";
  };
  std::ofstream(folder + "/schedules") << line(0, steps) << line(2, 2) << line(2, 4);
  const auto measure = [&](const std::string& schedules) {
    return Process(MEMSLOT_CLIENT,
                   {"--endpoint", pair.endpoint, "measure", table, folder + "/" + schedules,
                    folder + "/measured", "--timeout", "5"},
                   folder + "/measure.log")
        .run_to_end();
  };
  const auto lines = [&] {
    std::map<std::string, std::vector<double>> out;  // by first and actions
    std::ifstream in(folder + "/measured");
    for (std::string text; std::getline(in, text);) {
      const json j = json::parse(text);
      out[j["first"].dump() + j["actions"].dump()] = j["gain"].get<std::vector<double>>();
    }
    return out;
  };
  const auto gains_of = [&](std::size_t first, std::size_t swapped_out) {
    const json j = json::parse(line(first, swapped_out));
    return lines().at(j["first"].dump() + j["actions"].dump());
  };
  ASSERT_EQ(measure("schedules"), 0) << slurp(folder + "/measure.log");
  const auto whole = gains_of(0, steps);
  for (std::size_t t = 0; t < steps; ++t) {
    EXPECT_NEAR(whole[t], made.gain_of(stream->first + t, 1), 5e-6) << t;
  }
  for (const double gain : gains_of(2, 2)) EXPECT_EQ(gain, 0);
  const auto middle = gains_of(2, 4);
  ASSERT_EQ(middle.size(), steps - 2);
  EXPECT_NE(middle[1], 0);
  EXPECT_NE(middle[2], 0) << "base over a cache in which the memory's keys and values remain";

  // Again: what is measured is kept, a line that was cut off is made again.
  const auto scored = [&] {
    return must(client->task("status", json::object()))["tasks"]["done"].get<std::size_t>();
  };
  const auto all = lines();
  const std::string bytes = slurp(folder + "/measured");
  std::filesystem::resize_file(folder + "/measured", bytes.size() - 20);
  const std::size_t before = scored();
  ASSERT_EQ(measure("schedules"), 0) << slurp(folder + "/measure.log");
  EXPECT_EQ(scored(), before + 2) << "one schedule, and the question itself";
  EXPECT_EQ(lines(), all);

  std::ofstream(folder + "/unknown") << R"({"stream":"none","first":0,"actions":["base"]})";
  EXPECT_EQ(measure("unknown"), 12);
  std::ofstream(folder + "/short")
      << json{{"stream", stream->id}, {"first", 0}, {"actions", {"base"}}};
  EXPECT_EQ(measure("short"), 13);
  for (const char* bad : {"?", "[]", "{}", R"({"stream":1,"first":0,"actions":[]})",
                          R"({"stream":"s","first":-1,"actions":[]})"}) {
    std::ofstream(folder + "/bad") << bad;
    EXPECT_EQ(measure("bad"), 13) << bad;
  }
  EXPECT_EQ(measure("absent"), 12);
  EXPECT_EQ(lines(), all) << "refused before anything was written";
  std::filesystem::resize_file(table + ".streams.json", 1000);
  EXPECT_EQ(measure("schedules"), 13);
}

TEST_F(GainsTest, ARunThatWasKilledGoesOnWithTheStreamsItHad) {
  Process first = program();
  const auto parts = [&] {
    std::size_t count = 0;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(table + ".rows", none))
      count += entry.path().extension() == ".rows" ? 1 : 0;
    return count;
  };
  std::thread runs([&] { first.run_to_end(); });
  while (parts() < 3) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  first.kill(SIGKILL);
  runs.join();
  if (std::filesystem::exists(table)) GTEST_SKIP() << "SKIPPED: it was done before it was killed";
  const std::size_t kept = parts(), learned = jobs();
  EXPECT_GE(kept, 3u);
  // One of them is damaged: it is made again.
  for (const auto& entry : std::filesystem::directory_iterator(table + ".rows")) {
    std::filesystem::resize_file(entry.path(), 100);
    break;
  }
  const auto scored = [&] {
    return must(client->task("status", json::object()))["tasks"]["done"].get<std::size_t>();
  };
  // What the killed one had asked for ends first.
  const auto running = [&] {
    return must(client->task("status", json::object()))["tasks"]["running"].get<int>();
  };
  while (running() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::size_t before = scored();
  ASSERT_EQ(run(), 0) << slurp(folder + "/gains.log");
  EXPECT_EQ(jobs(), learned);
  const GainTable made = must(GainTable::load(table));
  // Tokenizing 13 articles and 5 texts, two times status, and the streams that were missing.
  EXPECT_EQ(scored() - before, 13 + 5 + 2 + made.streams.size() - (kept - 1));
}

TEST_F(GainsTest, WhatCannotBeDoneIsSaidAndLeavesNoTable) {
  const auto refused = [&](int code, const char* what, std::vector<std::string> more,
                           const std::string& text = "text") {
    EXPECT_EQ(run(std::move(more), text), code) << what;
    EXPECT_NE(slurp(folder + "/gains.log.out").find(what), std::string::npos)
        << slurp(folder + "/gains.log.out");
    EXPECT_FALSE(std::filesystem::exists(table));
  };
  const std::string whole = slurp(folder + "/text");
  std::ofstream(folder + "/cut") << whole.substr(0, 5000);
  std::ofstream(folder + "/few") << whole.substr(0, whole.find(" = Article 7"));
  std::ofstream(folder + "/prose_only") << "No title at all.\n";
  EXPECT_EQ(run({"--no-such-option"}), 2);
  EXPECT_EQ(run({"--kind", "delta"}), 2);
  EXPECT_EQ(run({"--memory-tokens", "3"}), 2);
  refused(13, "cut off", {}, "cut");
  refused(11, "expected at least 12, found 7", {}, "few");
  refused(11, "' = Title = '", {}, "prose_only");
  refused(12, "absent", {}, "absent");
  refused(12, "prose", {"--prose", folder + "/nowhere"});
  refused(11, "the context", {"--stream-steps", "200"});
  refused(11, "JSON object", {"--config", "[1]"});
  refused(11, "no_such_option", {"--config", "{\"no_such_option\": 1}"});
  refused(11, "argument slot", {"--slot", "5"});
  refused(17, "found none", {"--endpoint", "ipc://" + folder + "/nobody", "--timeout", "0.5"});
  pair.generator.kill(SIGKILL);
  EXPECT_EQ(run(), 17);
}

}  // namespace
}  // namespace memslot
