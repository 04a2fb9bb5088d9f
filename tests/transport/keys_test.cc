#include "shared/transport/keys.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "shared/transport/zmq_channel.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

mode_t mode_of(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_mode & 0777;
}

class Keys : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text, mode_t mode = 0600) {
    const std::string path = folder_.write(name, text);
    ::chmod(path.c_str(), mode);
    return path;
  }
  testing_support::TemporaryFolder folder_;
  const std::string path_ = folder_.path() + "/controller.key";
};

TEST_F(Keys, AWrittenPairReadsBackAndItsSecretIsTheOwnersAlone) {
  const auto written = write_keypair(path_);
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_EQ(mode_of(path_), 0600U);
  const auto read = read_keys(path_);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read.value().public_key, written.value().public_key);
  EXPECT_EQ(read.value().secret_key, written.value().secret_key);
}

TEST_F(Keys, ThePublicKeyLiesBesideItAndFitsAnAllowList) {
  const auto written = write_keypair(path_);
  ASSERT_TRUE(written);
  const auto list = read_public_keys(path_ + ".pub");
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(list.value(), std::vector<std::string>{written.value().public_key});
}

TEST_F(Keys, TwoPairsDiffer) {
  EXPECT_NE(generate_keypair().value().secret_key, generate_keypair().value().secret_key);
}

TEST_F(Keys, AnExistingFileIsNeverOverwritten) {
  write("controller.key", "precious");
  const auto written = write_keypair(path_);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ErrorCode::kConflict);
  std::ifstream in(path_);
  std::string text;
  in >> text;
  EXPECT_EQ(text, "precious");
}

TEST_F(Keys, AnExistingPublicFileLeavesNoHalfPairBehind) {
  write("controller.key.pub", "precious");
  EXPECT_EQ(write_keypair(path_).error().code, ErrorCode::kConflict);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(Keys, AFileThatOthersMayReadIsRefused) {
  ASSERT_TRUE(write_keypair(path_));
  ::chmod(path_.c_str(), 0640);
  const auto read = read_keys(path_);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kPermission);
  EXPECT_NE(read.error().message.find("expected mode 0600, found 0640"), std::string::npos)
      << read.error().message;
}

TEST_F(Keys, AMissingFileIsNotFound) {
  EXPECT_EQ(read_keys(folder_.path() + "/none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(read_public_keys(folder_.path() + "/none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(write_keypair(folder_.path() + "/no/folder").error().code, ErrorCode::kIo);
}

TEST_F(Keys, AnythingElseInTheFileIsCorrupt) {
  const auto pair = generate_keypair().value();
  const std::string good = "public " + pair.public_key + "\nsecret " + pair.secret_key + "\n";
  for (const std::string& text :
       {std::string(), good, "memslot-key 2\n" + good, std::string("memslot-key 1\n"),
        "memslot-key 1\nsecret " + pair.secret_key + "\n",
        "memslot-key 1\npublic " + pair.public_key + "\nsecret short\n"}) {
    const auto read = read_keys(write("bad.key", text));
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code, ErrorCode::kCorruption) << text;
    EXPECT_EQ(read.error().message.find(pair.secret_key), std::string::npos)
        << "an error must not tell the secret";
  }
}

TEST_F(Keys, AnAllowListHasCommentsAndNamesItsBadLine) {
  const auto key = generate_keypair().value().public_key;
  const auto list =
      read_public_keys(write("list", "# generators\n\n" + key + "  # the first\n" + key + "\n"));
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(list.value(), (std::vector<std::string>{key, key}));
  const auto bad = read_public_keys(write("bad", key + "\nnot a key\n"));
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, ErrorCode::kCorruption);
  EXPECT_NE(bad.error().message.find("bad:2"), std::string::npos) << bad.error().message;
}

TEST_F(Keys, OneThatBeginsWithAnAtSignIsAKeyUnlessThereIsSuchAFile) {
  const std::string key = "@2FeB0c.x%" + generate_keypair().value().public_key.substr(10);
  const auto given = client_options("tcp://127.0.0.1:1", "", key);
  ASSERT_TRUE(given) << given.error().message;
  EXPECT_EQ(given.value().server_key, key);
  const auto other = generate_keypair().value().public_key;
  const auto read = client_options("tcp://127.0.0.1:1", "", "@" + write("one", other + "\n"));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read.value().server_key, other);
  EXPECT_EQ(client_options("tcp://127.0.0.1:1", "", "@nowhere").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace memslot
