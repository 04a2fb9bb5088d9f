#include "generator/backend/open_backend.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace memslot {
namespace {

TEST(OpenBackend, UnknownNameIsRefusedByName) {
  const auto backend = open_backend({.name = "abacus"});
  ASSERT_FALSE(backend.has_value());
  EXPECT_EQ(backend.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(backend.error().message, "backend: expected cpu, found abacus");
}

TEST(OpenBackend, CudaIsNotInThisBuild) {
  EXPECT_EQ(open_backend({.name = "cuda"}).error().code, ErrorCode::kNotSupported);
}

TEST(OpenBackend, ThreadCountsOutOfRangeAreRefused) {
  for (const int threads : {-1, 1025}) {
    EXPECT_EQ(open_backend({.name = "cpu", .threads = threads}).error().code,
              ErrorCode::kInvalidArgument);
  }
}

TEST(OpenBackend, ThreadsAreWhatWasAskedForAndZeroMeansTheMachines) {
  EXPECT_EQ(open_backend({.name = "cpu", .threads = 1}).value()->info().threads, 1);
  EXPECT_GE(open_backend({.name = "cpu"}).value()->info().threads, 1);
}

TEST(OpenBackend, InfoClaimsBf16AndRowInvarianceOnlyWithAvx512) {
  const auto info = open_backend({.name = "cpu"}).value()->info();
  EXPECT_EQ(info.name, "cpu");
  EXPECT_FALSE(info.device.empty());
  EXPECT_TRUE(info.library.starts_with("oneDNN ")) << info.library;
  const bool avx512 = info.isa.starts_with("avx512");
  EXPECT_TRUE(avx512 || !info.row_invariant);
  EXPECT_TRUE(avx512 || !info.bf16);
  const char* limit = std::getenv("DNNL_MAX_CPU_ISA");
  if (limit != nullptr && std::string(limit) == "AVX2") {
    EXPECT_EQ(info.isa, "avx2");
    EXPECT_FALSE(info.bf16);
    EXPECT_FALSE(info.row_invariant);
  }
}

TEST(BackendMemory, IsAlignedAndCarriesBytesBothWays) {
  const auto backend = open_backend({}).value();
  const auto buffer = backend->alloc(100).value();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0U);
  std::vector<std::byte> out(100), in(100, std::byte{7});
  ASSERT_TRUE(backend->upload(buffer.data(), in).has_value());
  backend->wait(backend->record());
  ASSERT_TRUE(backend->download(out, buffer.data()).has_value());
  EXPECT_EQ(out, in);
}

TEST(BackendMemory, NothingCanBeCarriedBothWays) {
  const auto backend = open_backend({}).value();
  const auto buffer = backend->alloc(0).value();
  EXPECT_TRUE(backend->upload(buffer.data(), {}).has_value());
  EXPECT_TRUE(backend->download({}, buffer.data()).has_value());
}

TEST(BackendMemory, ThatCannotBeHadIsNoSpace) {
  const auto backend = open_backend({}).value();
  const auto buffer = backend->alloc(std::size_t{1} << 60);
  ASSERT_FALSE(buffer.has_value());
  EXPECT_EQ(buffer.error().code, ErrorCode::kNoSpace);
}

}  // namespace
}  // namespace memslot
