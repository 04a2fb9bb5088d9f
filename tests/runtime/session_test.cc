// The numerical half of a session: figures, limits, swaps in both modes.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/runtime/tiny_engine.h"

namespace memslot {
namespace {

using namespace testing_support;

std::vector<std::int32_t> ids(int count, int seed = 3) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back((seed + 37 * i) % 256);
  return out;
}

bool go_on(std::int32_t) { return true; }

struct SessionTest : testing::Test {
  TinyEngine tiny{{1, 2}};

  std::vector<std::int32_t> write(Session& s, int count) {
    std::vector<std::int32_t> out;
    for (const TokenFigures& t : must(s.write(count, go_on)).tokens) out.push_back(t.token);
    return out;
  }
  void prefill(Session& s, std::int64_t piece = 512) {
    while (!must(s.prefill(piece))) {
    }
  }
  SwapOutcome swap(Session& s, std::size_t slot, std::shared_ptr<const LoadedMemory> memory) {
    const SlotChange change{slot, std::move(memory)};
    return must(s.activate({&change, 1}));
  }
  // Of slot 0; its state is zero but for one value.
  std::shared_ptr<const LoadedMemory> delta(const std::string& name, float value = 0) {
    if (tiny.outer == nullptr) tiny.connect();
    const auto outer = must(tiny.outer->get(0, MemoryKind::kDelta));
    const SlotSignature signature = expected_signature(*tiny.tiny.gpt, tiny.digest, 0,
                                                       MemoryKind::kDelta, sha256(outer->bytes()));
    DeltaStateValues values = DeltaStateValues::zero(tiny.outer->shape());
    values.s[0] = value;
    return tiny.load(stored(name, must(make_delta_state(signature, tiny.outer->shape(), values))));
  }
};

std::vector<std::byte> bytes(const MemoryPayload& p) {
  return {p.bytes().begin(), p.bytes().end()};
}

TEST_F(SessionTest, WritesTheSameWhetherThePromptIsReadWholeOrInPieces) {
  std::vector<std::vector<std::int32_t>> texts;
  for (const std::int64_t piece : {512, 7, 1}) {
    auto s = tiny.session();
    must(s->add_tokens(ids(60)));
    prefill(*s, piece);
    texts.push_back(write(*s, 20));
  }
  if (!tiny.tiny.backend->info().row_invariant) GTEST_SKIP() << "backend is not row-invariant";
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(texts[0], texts[2]);
}

std::vector<std::uint32_t> sizes(const StepSummary& summary) {
  std::vector<std::uint32_t> out;
  for (const wire::ChunkSummary& chunk : summary.chunks) {
    EXPECT_EQ(chunk.mean.size(), 64u);
    out.push_back(chunk.tokens);
  }
  return out;
}

TEST_F(SessionTest, SummarisesAPromptInChunksFromItsEndWithoutTheFirstToken) {
  using Sizes = std::vector<std::uint32_t>;
  const std::pair<int, Sizes> cases[] = {
      {2, {}},        {3, {1}},          {10, {8}},
      {17, {15}},     {18, {16}},        {19, {1, 16}},
      {34, {16, 16}}, {35, {1, 16, 16}}, {128, {14, 16, 16, 16, 16, 16, 16, 16}}};
  for (const auto& [count, chunks] : cases) {
    auto s = tiny.session();
    must(s->add_tokens(ids(count)));
    prefill(*s);
    EXPECT_EQ(sizes(s->prompt_summary()), chunks) << count;
    EXPECT_GT(s->prompt_summary().surprise, 0) << count;
  }
}

TEST_F(SessionTest, OfALongStretchOnlyTheChunksOfTheWindowAreKept) {
  Backend& backend = *tiny.tiny.backend;
  std::vector<float> rows(300);
  std::iota(rows.begin(), rows.end(), 0.0f);
  const Buffer x = must(backend.alloc(rows.size() * sizeof(float)));
  must(backend.upload(x.data(), std::as_bytes(std::span(rows))));
  Observer observer(backend);
  observer.start(/*first_position=*/0, /*boundary=*/0);
  observer.add_rows({0, 0, {x.data(), DType::kF32, 300, 1, 1}, {}});
  const auto chunks = observer.summary().chunks;
  ASSERT_EQ(chunks.size(), 9u);  // 128 tokens, and 12 of a chunk that is not full yet
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(chunks[i].tokens, 16u);
    EXPECT_EQ(chunks[i].mean[0], 160.0f + 16.0f * static_cast<float>(i) + 7.5f);
  }
  EXPECT_EQ(chunks[8].tokens, 12u);
  EXPECT_EQ(chunks[8].mean[0], 293.5f);
}

// The lowest slot's inputs do not depend on how they were batched, nor on what any slot holds.
TEST_F(SessionTest, ChunksHaveTheSameBitsHoweverTheTextWasRead) {
  const auto read_in = [&](std::int64_t piece, std::shared_ptr<const LoadedMemory> memory) {
    auto s = tiny.session();
    must(s->add_tokens(ids(100)));
    if (memory != nullptr) swap(*s, 0, std::move(memory));
    prefill(*s, piece);
    return s->prompt_summary().chunks;
  };
  const auto whole = read_in(512, nullptr);
  ASSERT_EQ(whole.size(), 7u);
  EXPECT_EQ(read_in(512, tiny.load(tiny.mlp("a"))), whole);
  if (!tiny.tiny.backend->info().row_invariant) GTEST_SKIP() << "backend is not row-invariant";
  for (const std::int64_t piece : {1, 7, 33}) EXPECT_EQ(read_in(piece, nullptr), whole) << piece;
}

TEST_F(SessionTest, AStepIsSummarisedInChunksFromItsBeginning) {
  auto s = tiny.session();
  must(s->add_tokens(ids(100)));
  EXPECT_EQ(sizes(must(s->read(16)).summary), std::vector<std::uint32_t>{15});
  EXPECT_EQ(sizes(must(s->read(16)).summary), std::vector<std::uint32_t>{16});
  EXPECT_EQ(sizes(must(s->read(1)).summary), std::vector<std::uint32_t>{1});
  EXPECT_EQ(sizes(must(s->read(40)).summary), (std::vector<std::uint32_t>{16, 16, 8}));
  while (!must(s->prefill(512))) {
  }
  EXPECT_EQ(sizes(must(s->write(20, go_on)).summary), (std::vector<std::uint32_t>{16, 4}));
}

TEST_F(SessionTest, OneTokenOfPromptHasNoSummary) {
  auto s = tiny.session();
  must(s->add_tokens(ids(1)));
  prefill(*s);
  EXPECT_TRUE(s->prompt_summary().chunks.empty());
  EXPECT_EQ(write(*s, 3).size(), 3u);
}

TEST_F(SessionTest, RefusesMoreTokensThanTheContextAndUnknownIds) {
  auto s = tiny.session();
  EXPECT_EQ(s->add_tokens(ids(129)).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(s->tokens().empty());
  const std::int32_t unknown[] = {3, 256};
  EXPECT_EQ(s->add_tokens(unknown).error().code, ErrorCode::kInvalidArgument);
  const std::int32_t negative[] = {-1};
  EXPECT_EQ(s->add_tokens(negative).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(s->tokens().empty());
}

TEST_F(SessionTest, EndsAtTheContext) {
  auto s = tiny.session();
  must(s->add_tokens(ids(120)));
  prefill(*s);
  const StepOutput out = must(s->write(50, go_on));
  EXPECT_EQ(out.tokens.size(), 8u);
  EXPECT_EQ(out.end, StepEnd::kEnded);
}

TEST_F(SessionTest, ReadingScoresEveryTokenButTheFirst) {
  auto s = tiny.session();
  must(s->add_tokens(ids(50)));
  std::vector<float> stepwise;
  for (StepEnd end = StepEnd::kMore; end == StepEnd::kMore;) {
    const StepOutput out = must(s->read(16));
    for (const auto& t : out.tokens) stepwise.push_back(t.log_prob);
    end = out.end;
  }
  auto whole = tiny.session();
  must(whole->add_tokens(ids(50)));
  const StepOutput out = must(whole->read(500));
  ASSERT_EQ(out.tokens.size(), 49u);
  ASSERT_EQ(stepwise.size(), 49u);
  for (std::size_t i = 0; i < 49; ++i) EXPECT_NEAR(stepwise[i], out.tokens[i].log_prob, 1e-4) << i;
}

TEST_F(SessionTest, ActivatedSwapCountsFromTheNextTokenOn) {
  const auto memory = tiny.load(tiny.mlp("a"));
  auto s = tiny.session();
  must(s->add_tokens(ids(40)));
  prefill(*s);
  const SwapOutcome swapped = swap(*s, 0, memory);
  EXPECT_TRUE(swapped.changed);
  EXPECT_EQ(swapped.recomputed, 0);
  EXPECT_FALSE(swap(*s, 0, memory).changed) << "the same memory again is no swap";
  write(*s, 4);
  ASSERT_EQ(s->kv().spans().size(), 2u);
  EXPECT_EQ(s->kv().spans()[0].memories[0], "");
  EXPECT_EQ(s->kv().spans()[1].first, 39);
  EXPECT_NE(s->kv().spans()[1].memories[0], "");
}

TEST_F(SessionTest, RecomputeToBaseRestoresTheLogitsOfASessionThatNeverSwapped) {
  SessionSettings settings;
  settings.kv = wire::KvMode::kRecompute;
  settings.digest_logits = true;
  auto plain = tiny.session(settings);
  auto swapped = tiny.session(settings);
  for (Session* s : {plain.get(), swapped.get()}) {
    must(s->add_tokens(ids(40)));
    prefill(*s);
  }
  EXPECT_EQ(swap(*swapped, 0, tiny.load(tiny.mlp("a"))).recomputed, 39);
  swap(*swapped, 0, nullptr);
  if (!tiny.tiny.backend->info()
           .row_invariant) {  // the same calls, with base's own values as memory
    GTEST_SKIP() << "backend is not row-invariant: RecomputeMode compares the same calls";
  }
  write(*plain, 10);
  write(*swapped, 10);
  EXPECT_EQ(plain->logits_xxh3(), swapped->logits_xxh3());
  EXPECT_EQ(plain->tokens(), swapped->tokens());
}

TEST_F(SessionTest, ADeltaMemoryThatComesBackGoesOnFromWhereItWas) {
  const auto memory = delta("d");
  auto s = tiny.session();
  must(s->add_tokens(ids(20)));
  swap(*s, 0, memory);
  prefill(*s);
  const auto state = bytes(must(s->snapshot(0)));
  EXPECT_TRUE(s->slot(0).dirty());
  swap(*s, 0, nullptr);
  write(*s, 5);
  swap(*s, 0, memory);
  EXPECT_EQ(bytes(must(s->snapshot(0))), state);
}

TEST_F(SessionTest, OfMoreDeltaMemoriesThanAreSetAsideTheOldestStartsAnew) {
  std::vector<std::shared_ptr<const LoadedMemory>> memories;
  for (int i = 0; i < 9; ++i) {
    memories.push_back(
        delta(std::string(1, static_cast<char>('a' + i)), static_cast<float>(i + 1)));
  }
  // The oldest has the greatest digest, the order of a map would drop another.
  std::sort(memories.begin(), memories.end(),
            [](const auto& a, const auto& b) { return a->sha256().hex() > b->sha256().hex(); });
  auto s = tiny.session();
  must(s->add_tokens(ids(10)));
  prefill(*s);
  std::vector<std::vector<std::byte>> fresh, read;
  for (const auto& memory : memories) {
    swap(*s, 0, memory);
    fresh.push_back(bytes(must(s->snapshot(0))));
    write(*s, 2);
    read.push_back(bytes(must(s->snapshot(0))));
    EXPECT_NE(fresh.back(), read.back());
  }
  swap(*s, 0, nullptr);
  for (std::size_t i = 1; i < memories.size(); ++i) {
    swap(*s, 0, memories[i]);
    EXPECT_EQ(bytes(must(s->snapshot(0))), read[i]) << i;
    swap(*s, 0, nullptr);
  }
  swap(*s, 0, memories[0]);
  EXPECT_EQ(bytes(must(s->snapshot(0))), fresh[0]);
}

// --- continue_from -------------------------------------------------------------------------------

struct ContinueFrom : SessionTest, testing::WithParamInterface<wire::KvMode> {
  using Memory = std::shared_ptr<const LoadedMemory>;

  SessionSettings settings() const {
    SessionSettings out;
    out.kv = GetParam();
    out.digest_logits = true;
    out.sampling.temperature = 1;  // draws go on, too
    return out;
  }
  // In the middle of a text: a prompt was read under a memory, some tokens were written, and the
  // second slot took another memory.
  std::unique_ptr<Session> in_the_middle(const Memory& memory) {
    auto s = tiny.session(settings());
    must(s->add_tokens(ids(40)));
    if (memory != nullptr) swap(*s, 0, memory);
    prefill(*s);
    write(*s, 6);
    swap(*s, 1, second);
    write(*s, 3);
    return s;
  }
  // On with what it has, then under another memory, then back: what was set aside comes in.
  void go_on_from_here(Session& s, const Memory& memory) {
    write(s, 5);
    swap(s, 0, other);
    write(s, 4);
    swap(s, 0, memory);
    write(s, 5);
  }
  static void expect_equal(const Session& a, const Session& b) {
    EXPECT_EQ(a.tokens(), b.tokens());
    EXPECT_EQ(a.logits_xxh3(), b.logits_xxh3());
    EXPECT_EQ(a.kv().spans(), b.kv().spans());
    EXPECT_EQ(a.prompt_summary().chunks, b.prompt_summary().chunks);
    EXPECT_EQ(a.slot(0).dirty(), b.slot(0).dirty());
  }

  Memory second = tiny.load(tiny.lora("second", 1), 1);
  Memory other = tiny.load(tiny.mlp("other"));
};

TEST_P(ContinueFrom, WritesWhatTheOtherWouldHaveAndLeavesItAlone) {
  const std::pair<const char*, Memory> cases[] = {{"base", nullptr},
                                                  {"mlp", tiny.load(tiny.mlp("a"))},
                                                  {"lora", tiny.load(tiny.lora("b"))},
                                                  {"delta", delta("d")}};
  for (const auto& [name, memory] : cases) {
    SCOPED_TRACE(name);
    const auto alone = in_the_middle(memory);  // never copied
    const auto left = in_the_middle(memory);
    const auto copy = tiny.session(settings());
    must(copy->continue_from(*left));
    expect_equal(*copy, *left);

    go_on_from_here(*alone, memory);
    go_on_from_here(*copy, memory);
    expect_equal(*copy, *alone);
    EXPECT_NE(copy->tokens(), left->tokens());
    go_on_from_here(*left, memory);  // after the copy has gone its way
    expect_equal(*left, *alone);
  }
}

TEST_P(ContinueFrom, TakesTheStatesThatWereSetAsideAlong) {
  const Memory memory = delta("d");
  const auto left = in_the_middle(memory);
  swap(*left, 0, other);
  const auto copy = tiny.session(settings());
  must(copy->continue_from(*left));
  for (Session* s : {left.get(), copy.get()}) {
    swap(*s, 0, memory);
    write(*s, 5);
  }
  expect_equal(*copy, *left);
  EXPECT_EQ(bytes(must(copy->snapshot(0))), bytes(must(left->snapshot(0))));
}

TEST_P(ContinueFrom, GoesOnReadingAPromptToTheSameSummary) {
  const auto left = tiny.session(settings());
  must(left->add_tokens(ids(100)));
  EXPECT_FALSE(must(left->prefill(50)));
  const auto copy = tiny.session(settings());
  must(copy->continue_from(*left));
  for (Session* s : {left.get(), copy.get()}) prefill(*s, 50);
  ASSERT_FALSE(left->prompt_summary().chunks.empty());
  EXPECT_EQ(copy->prompt_summary().chunks, left->prompt_summary().chunks);
  EXPECT_EQ(copy->prompt_summary().surprise, left->prompt_summary().surprise);
}

TEST_P(ContinueFrom, DropsWhatItHeldAndCountsItsCacheOnce) {
  const std::size_t before = tiny.scratch.kv_bytes();
  {
    const auto left = in_the_middle(nullptr);
    const auto copy = in_the_middle(delta("d"));
    must(copy->continue_from(*left));
    expect_equal(*copy, *left);
    EXPECT_EQ(copy->slot(0).active(), nullptr);
    EXPECT_EQ(tiny.scratch.kv_bytes(), before + left->kv().bytes() + copy->kv().bytes());
  }
  EXPECT_EQ(tiny.scratch.kv_bytes(), before);
}

TEST_P(ContinueFrom, RefusesAnotherKvModeAndStaysAsItWas) {
  const auto left = in_the_middle(nullptr);
  SessionSettings settings;
  settings.kv =
      GetParam() == wire::KvMode::kRecompute ? wire::KvMode::kActivated : wire::KvMode::kRecompute;
  const auto copy = tiny.session(settings);
  const Status refused = copy->continue_from(*left);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kMismatch);
  EXPECT_TRUE(copy->tokens().empty());
  EXPECT_EQ(copy->cached(), 0);
}

INSTANTIATE_TEST_SUITE_P(KvModes, ContinueFrom,
                         testing::Values(wire::KvMode::kActivated, wire::KvMode::kRecompute),
                         [](const auto& mode) { return std::string(kv_mode_name(mode.param)); });

}  // namespace
}  // namespace memslot
