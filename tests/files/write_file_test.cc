#include "shared/files/write_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(WriteFile, ReplacesWhatWasThereAndLeavesNothingBeside) {
  testing_support::TemporaryFolder folder;
  const std::string path = folder.path() + "/f";
  ASSERT_TRUE(write_file(path, "old"));
  ASSERT_TRUE(write_file(path, std::string(100'000, 'x')));
  EXPECT_EQ(read(path), std::string(100'000, 'x'));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(WriteFile, SaysWhyItCannotAndNamesThePath) {
  testing_support::TemporaryFolder folder;
  const std::string path = folder.path() + "/no/such/folder";
  const Status written = write_file(path, "x");
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ErrorCode::kIo);
  EXPECT_NE(written.error().message.find(path), std::string::npos);
}

TEST(WriteFile, AFullDiskLeavesTheOldFile) {
  testing_support::TemporaryFolder folder;
  const std::string path = folder.path() + "/f";
  ASSERT_TRUE(write_file(path, "old"));
  // A limit on the size of files stands in for a full disk: write() fails half way.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status written = write_file(path, std::string(5000, 'x'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_FALSE(written);
  EXPECT_EQ(read(path), "old");
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));
}

}  // namespace
}  // namespace memslot
