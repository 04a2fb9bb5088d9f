#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "shared/trace/encoder.h"
#include "shared/trace/reader.h"

namespace memslot::trace {
namespace {

Sha256 digest_of(std::uint8_t seed) {
  Sha256 out;
  out.bytes.fill(seed);
  return out;
}

NamedMemory memory(const std::string& id, std::uint64_t version = 1) {
  return {{"default", id, version}, digest_of(static_cast<std::uint8_t>(id.size() + version))};
}
NamedMemory base() { return {MemoryRef{"", "", 0}, {}}; }

Start start() {
  return {.session = 0x12f68c33f3466f8fULL,
          .created_unix_ms = 1795405365076,
          .origin = Origin::kWritten,
          .namespaces = {"default", "team"},
          .build = R"({"threads":2})",
          .request = R"({"seed":1})",
          .policy = "nearest:0.3",
          .prompt = {1, 2, 3},
          .prompt_text = "Once upon",
          .opening = {base(), memory("ferry")}};
}

Step step(std::uint64_t number) {
  return {.step = number,
          .active = {{0, memory("ferry"), wire::ActiveReason::kDirective},
                     {1, base(), wire::ActiveReason::kLate}},
          .tokens = {5, 6, 7},
          .log_probs = {-0.25f, -1.5f, -0.0f},
          .text = "a text",
          .logits_xxh3 = 0xfedcba9876543210ULL,
          .entropy = 2.5f,
          .surprise = 1.25f,
          .gain = number % 2 == 0 ? std::optional<float>(0.5f) : std::nullopt,
          .candidates = 12,
          .advised_step = number == 0 ? std::nullopt : std::optional<std::uint64_t>(number - 1),
          .select_us = 100,
          .swap_us = 1,
          .recompute_us = 3,
          .compute_us = 200000,
          .recomputed = 17};
}

Decision decision(std::uint64_t number, std::size_t memories) {
  Decision out{.step = number,
               .slot = 1,
               .policy = "learned:abc",
               .seed = 9,
               .explore = true,
               .entropy = 1.5f,
               .surprise = 2.5f,
               .steps_since_swap = 3,
               .chosen = 1,
               .log_prob = -0.5f,
               .features = true,
               .query = std::vector<float>(96, 0.125f),
               .candidates = {}};
  out.candidates.push_back({.ref = base().ref, .current = true});
  for (std::size_t i = 0; i < memories; ++i) {
    out.candidates.push_back({.ref = {"default", "memory-" + std::to_string(i), 3},
                              .current = false,
                              .resident = true,
                              .best_key = 0.5f,
                              .mean_key = -0.25f,
                              .long_key = 0.75f,
                              .past_net_gain = 0.125f,
                              .uses = 4,
                              .age = 1ULL << 40,
                              .swap_cost = 0.01f,
                              .score = 3.5f});
  }
  return out;
}

std::vector<std::byte> file_of(const std::vector<Event>& events) {
  Encoder generator(Writer::kGenerator), controller(Writer::kController);
  std::vector<std::byte> out(kMagic.size());
  std::memcpy(out.data(), kMagic.data(), kMagic.size());
  for (const Event& event : events) {
    const bool decided =
        std::holds_alternative<Decision>(event) || std::holds_alternative<Feedback>(event);
    Encoder& encoder = decided ? controller : generator;
    encoder.add(event);
    const auto bytes = encoder.take();
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  return out;
}

std::vector<std::byte> whole_file() {
  return file_of({start(), decision(0, 3), step(0), step(1), decision(1, 5),
                  WriteBack{1, "default/a@1", "default/a@2", true, "e"}, Fault{1, "lost"},
                  Feedback{-0.5f}, End{"length", "", 1, 2, 0.5, 1.5}});
}

TEST(Trace, ComesBackAsItWasWritten) {
  const auto trace = read_trace(whole_file());
  ASSERT_TRUE(trace.has_value()) << trace.error().message;
  const Trace& t = trace.value();
  EXPECT_FALSE(t.damage.has_value());
  EXPECT_EQ(t.start, start());
  EXPECT_EQ(t.steps, (std::vector<Step>{step(0), step(1)}));
  EXPECT_EQ(t.decisions, (std::vector<Decision>{decision(0, 3), decision(1, 5)}));
  EXPECT_EQ(t.write_backs, (std::vector<WriteBack>{{1, "default/a@1", "default/a@2", true, "e"}}));
  EXPECT_EQ(t.faults, (std::vector<Fault>{{1, "lost"}}));
  EXPECT_EQ(t.feedback, (std::vector<Feedback>{{-0.5f}}));
  EXPECT_EQ(t.end, (End{"length", "", 1, 2, 0.5, 1.5}));
  EXPECT_EQ(t.good_bytes, whole_file().size());
  EXPECT_EQ(t.decision(1, 1)->candidates.size(), 6u);
  EXPECT_EQ(t.decision(1, 0), nullptr);
}

TEST(Trace, WhatWasSentTwiceCountsOnce) {
  Step other = step(1);
  other.text = "sent again";
  const auto trace = read_trace(file_of({start(), step(1), step(0), other, start(), step(0)}));
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace.value().steps, (std::vector<Step>{step(0), step(1)}));
}

TEST(Trace, AControllerThatRestartedSpellsItsMemoriesAnew) {
  const auto first = file_of({start(), decision(0, 3)});
  Decision later = decision(1, 2);
  std::swap(later.candidates[1], later.candidates[2]);  // other numbers than before
  auto second = file_of({later});
  auto both = first;
  both.insert(both.end(), second.begin() + static_cast<std::ptrdiff_t>(kMagic.size()),
              second.end());
  const auto trace = read_trace(both);
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace.value().decisions, (std::vector<Decision>{decision(0, 3), later}));
}

TEST(Trace, CutAnywhereItTellsWhatCameBefore) {
  const auto file = whole_file();
  const std::size_t first = file_of({start()}).size();
  std::size_t damaged = 0;
  for (std::size_t size = 0; size < file.size(); ++size) {
    const auto trace = read_trace(std::span(file).first(size));
    if (size < first) {
      ASSERT_FALSE(trace.has_value()) << size;
      EXPECT_EQ(trace.error().code, ErrorCode::kCorruption);
      continue;
    }
    ASSERT_TRUE(trace.has_value()) << size;
    EXPECT_LE(trace.value().good_bytes, size);
    EXPECT_EQ(trace.value().damage.has_value(), trace.value().good_bytes < size) << size;
    for (std::size_t i = 0; i < trace.value().steps.size(); ++i) {
      EXPECT_EQ(trace.value().steps[i], step(i));
    }
    damaged += trace.value().damage.has_value() ? 1 : 0;
  }
  EXPECT_GT(damaged, file.size() / 2);
}

TEST(Trace, AFlippedByteIsFoundWhereverItIs) {
  const auto file = whole_file();
  std::mt19937 random(1);
  for (std::size_t at = 0; at < file.size(); ++at) {
    auto bad = file;
    bad[at] ^= static_cast<std::byte>(1u << (random() % 8));
    const auto trace = read_trace(bad);
    if (!trace) continue;
    ASSERT_TRUE(trace.value().damage.has_value()) << "byte " << at;
    EXPECT_LE(trace.value().good_bytes, at);
  }
}

// A digest only guards against accidents: what fits it is checked all the same.
TEST(Trace, FramesThatLieAreRefused) {
  Encoder encoder(Writer::kGenerator);
  const auto lone = [&](const Event& event) {
    encoder.add(event);
    return encoder.take();
  };
  Step short_step = step(0);
  short_step.log_probs.pop_back();
  Decision beyond = decision(0, 2);
  beyond.chosen = 3;
  for (const Event& event : {Event(short_step), Event(beyond)}) {
    std::size_t at = 0;
    FrameReader reader;
    const auto bytes = lone(event);
    const auto found = reader.next(bytes, at);
    ASSERT_FALSE(found.has_value());
    EXPECT_EQ(found.error().code, ErrorCode::kCorruption);
  }
  // Memories that nobody spelled: those of `encoder` by now, for a reader that saw none.
  std::size_t at = 0;
  FrameReader reader;
  EXPECT_FALSE(reader.next(lone(step(0)), at).has_value());
}

// Without tokens and text at most 200 bytes a step; at most 2.5 KB for 32 candidates.
TEST(Trace, StepsAndDecisionsStayWithinTheirLimits) {
  Encoder encoder(Writer::kGenerator);
  Step one = step(0);
  one.active.resize(1);
  encoder.add(one);  // spells the memory
  encoder.take();
  one.step = 1;
  one.gain = 0.25f;
  one.advised_step = 1;
  encoder.add(one);
  const std::size_t said = one.tokens.size() * 8 + one.text.size();
  EXPECT_LE(encoder.take().size(), 200 + said);

  Encoder controller(Writer::kController);
  controller.add(decision(0, 31));
  controller.take();
  controller.add(decision(1, 31));
  EXPECT_LE(controller.take().size(), 2500u);
}

TEST(Trace, AnIdIsItsSessionInHex) {
  EXPECT_EQ(trace_id(0x12f68c33f3466f8fULL), "12f68c33f3466f8f");
  EXPECT_EQ(trace_id(10), "000000000000000a");
  EXPECT_EQ(parse_trace_id("000000000000000a").value(), 10u);
  for (const char* bad : {"", "a", "000000000000000A", "000000000000000g", "../../etc/passwd",
                          "0000000000000000a", " 00000000000000a", "+00000000000000a"}) {
    EXPECT_EQ(parse_trace_id(bad).error().code, ErrorCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace memslot::trace
