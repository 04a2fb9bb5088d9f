#include "shared/transport/keys.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace memslot {
namespace {

constexpr std::size_t kKeyChars = 40;
constexpr std::string_view kMagic = "memslot-key 1";

Error io_error(const std::string& path, const char* action) {
  return {ErrorCode::kIo,
          "key file: cannot " + std::string(action) + " " + path + ": " + std::strerror(errno)};
}

// O_EXCL and the mode at creation: the secret is never readable by others, not even for a moment.
Status write_new_file(const std::string& path, const std::string& text, mode_t mode) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0 && errno == EEXIST) {
    return Error{ErrorCode::kConflict, "key file: expected no file, found " + path};
  }
  if (fd < 0) return io_error(path, "create");
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(fd) == 0;
  const bool closed = ::close(fd) == 0;
  if (written && closed) return ok();
  const Error error = io_error(path, "write");
  ::unlink(path.c_str());
  return error;
}

Result<std::string> read_line_value(std::istream& in, const std::string& path, const char* word) {
  std::string name, value;
  in >> name >> value;
  if (name != word)
    return corrupt("key file " + path, std::string("a line '") + word + " KEY'", name);
  if (auto valid = check_key(path, value); !valid) {
    return Error{ErrorCode::kCorruption, valid.error().message};
  }
  return value;
}

}  // namespace

Status check_key(std::string_view what, std::string_view key) {
  std::array<std::uint8_t, 32> raw{};
  if (key.size() == kKeyChars && zmq_z85_decode(raw.data(), std::string(key).c_str()) != nullptr) {
    return ok();
  }
  // The text is not repeated: it may be a secret that was put in the wrong place.
  return invalid(std::string(what) + ": key", "40 characters of Z85",
                 std::to_string(key.size()) + " characters that are not");
}

Result<KeyPair> generate_keypair() {
  std::array<char, kKeyChars + 1> public_key{}, secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    return Error{ErrorCode::kNotSupported, "keys: this ZeroMQ was built without CURVE"};
  }
  return KeyPair{public_key.data(), secret_key.data()};
}

Result<KeyPair> write_keypair(const std::string& path) {
  MEMSLOT_TRY(auto pair, generate_keypair());
  const std::string text =
      std::string(kMagic) + "\npublic " + pair.public_key + "\nsecret " + pair.secret_key + "\n";
  MEMSLOT_TRY(write_new_file(path, text, 0600));
  if (auto written = write_new_file(path + ".pub", pair.public_key + "\n", 0644); !written) {
    ::unlink(path.c_str());
    return written.error();
  }
  return pair;
}

Result<KeyPair> read_keys(const std::string& path) {
  std::ifstream in(path);
  struct stat info {};
  if (!in || ::stat(path.c_str(), &info) != 0) {
    return Error{ErrorCode::kNotFound, "key file: cannot open " + path};
  }
  if ((info.st_mode & 077) != 0) {
    std::ostringstream mode;
    mode << "0" << std::oct << (info.st_mode & 0777);
    return Error{ErrorCode::kPermission,
                 "key file " + path + ": expected mode 0600, found " + mode.str()};
  }
  std::string magic;
  std::getline(in, magic);
  if (magic != kMagic) return corrupt("key file " + path, kMagic, "another first line");
  KeyPair pair;
  MEMSLOT_TRY(pair.public_key, read_line_value(in, path, "public"));
  MEMSLOT_TRY(pair.secret_key, read_line_value(in, path, "secret"));
  return pair;
}

Result<std::vector<std::string>> read_public_keys(const std::string& path) {
  std::ifstream in(path);
  if (!in) return Error{ErrorCode::kNotFound, "key file: cannot open " + path};
  std::vector<std::string> keys;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    // '#' is a Z85 character: a comment begins a line or follows a space.
    std::istringstream words(line);
    std::string key;
    if (!(words >> key)) continue;
    if (key.front() == '#' && key.size() != kKeyChars) continue;
    if (auto valid = check_key(path + ":" + std::to_string(number), key); !valid) {
      if (key.front() == '#') continue;
      return Error{ErrorCode::kCorruption, valid.error().message};
    }
    keys.push_back(key);
  }
  return keys;
}

}  // namespace memslot
