#include "shared/base/digest.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include <cstdio>
#include <vector>

namespace memslot {
namespace {

constexpr char kHex[] = "0123456789abcdef";

void append_hex(std::string& out, std::uint8_t byte) {
  out.push_back(kHex[byte >> 4]);
  out.push_back(kHex[byte & 15]);
}

int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Fills `out` from exactly 2 * out.size() hex digits.
bool parse_hex(std::string_view hex, std::span<std::uint8_t> out) {
  if (hex.size() != out.size() * 2) return false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

}  // namespace

std::string Sha256::hex() const {
  std::string out;
  out.reserve(64);
  for (const auto byte : bytes) append_hex(out, byte);
  return out;
}

Result<Sha256> Sha256::parse(std::string_view hex) {
  Sha256 out;
  if (!parse_hex(hex, out.bytes)) return invalid("SHA-256", "64 hex digits", hex);
  return out;
}

std::string Xxh128::hex() const {
  std::string out;
  out.reserve(32);
  for (const auto half : {high, low}) {
    for (int shift = 56; shift >= 0; shift -= 8) {
      append_hex(out, static_cast<std::uint8_t>(half >> shift));
    }
  }
  return out;
}

Result<Xxh128> Xxh128::parse(std::string_view hex) {
  std::array<std::uint8_t, 16> raw{};
  if (!parse_hex(hex, raw)) return invalid("XXH3-128", "32 hex digits", hex);
  Xxh128 out;
  for (std::size_t i = 0; i < 8; ++i) {
    out.high = out.high << 8 | raw[i];
    out.low = out.low << 8 | raw[i + 8];
  }
  return out;
}

struct Sha256Stream::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

Sha256Stream::Sha256Stream() : impl_(std::make_unique<Impl>()) {
  MEMSLOT_CHECK(EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr) == 1);
}
Sha256Stream::~Sha256Stream() = default;

void Sha256Stream::update(std::span<const std::byte> bytes) {
  MEMSLOT_CHECK(EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()) == 1);
}

Sha256 Sha256Stream::finish() {
  Sha256 out;
  unsigned length = 0;
  MEMSLOT_CHECK(EVP_DigestFinal_ex(impl_->context, out.bytes.data(), &length) == 1);
  MEMSLOT_CHECK(length == out.bytes.size());
  return out;
}

Sha256 sha256(std::span<const std::byte> bytes) {
  Sha256Stream stream;
  stream.update(bytes);
  return stream.finish();
}

std::uint64_t xxh3_64(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

Xxh128 xxh128(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.low64, hash.high64};
}

Result<Sha256> sha256_of_file(const std::string& path) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                       &std::fclose);
  if (!file) return Error{ErrorCode::kNotFound, "file: cannot open " + path};
  Sha256Stream stream;
  std::vector<std::byte> chunk(1 << 20);
  for (;;) {
    const std::size_t n = std::fread(chunk.data(), 1, chunk.size(), file.get());
    stream.update({chunk.data(), n});
    if (n < chunk.size()) break;
  }
  if (std::ferror(file.get()) != 0) return Error{ErrorCode::kIo, "file: cannot read " + path};
  return stream.finish();
}

}  // namespace memslot
