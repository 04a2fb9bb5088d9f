#include "controller/step/key_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>  // memcpy
#include <limits>

#include "shared/base/error.h"
#include "shared/base/target_clones.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace memslot {
namespace {

constexpr std::size_t kGroup = 16;  // rows side by side
constexpr std::size_t kQuad = 4;    // dimensions side by side: what one instruction adds up
constexpr int kZero = 128;          // the stored code of 0

struct CodedQuery {
  std::vector<std::int8_t> codes;  // (quads, kQuad): zeros behind the last dimension
  std::int32_t offset = 0;         // what the stored codes' zero adds to each sum
};

// products[i] = (sum - offset) * scale of a group's rows; a bit for each of those above `least`.
using ScoreGroup = std::uint32_t (*)(const std::uint8_t* codes, const CodedQuery& query,
                                     const float* scales, float least, float* products);

[[gnu::always_inline]] inline std::uint32_t scaled(const std::int32_t* sums, std::int32_t offset,
                                                   const float* scales, float least,
                                                   float* products) {
  std::uint32_t above = 0;
  for (std::size_t i = 0; i < kGroup; ++i) {
    products[i] = static_cast<float>(sums[i] - offset) * scales[i];
    above |= (products[i] > least ? 1u : 0u) << i;
  }
  return above;
}

std::uint32_t score_portable(const std::uint8_t* codes, const CodedQuery& query,
                             const float* scales, float least, float* products) {
  std::int32_t sums[kGroup] = {};
  for (std::size_t at = 0; at < query.codes.size(); at += kQuad, codes += kGroup * kQuad) {
    for (std::size_t i = 0; i < kGroup; ++i) {
      for (std::size_t j = 0; j < kQuad; ++j) {
        sums[i] += std::int32_t{codes[i * kQuad + j]} * std::int32_t{query.codes[at + j]};
      }
    }
  }
  return scaled(sums, query.offset, scales, least, products);
}

#if defined(__x86_64__)
// Products of bytes in 16 bits, two and two of them added to 32: two sums a row until the end.
__attribute__((target("avx2"))) std::uint32_t score_avx2(const std::uint8_t* codes,
                                                         const CodedQuery& query,
                                                         const float* scales, float least,
                                                         float* products) {
  constexpr std::size_t kParts = 4, kBytes = kGroup * kQuad / kParts;  // four rows each
  __m256i pairs[kParts] = {};
  for (std::size_t at = 0; at < query.codes.size(); at += kQuad) {
    std::int32_t quad = 0;
    std::memcpy(&quad, query.codes.data() + at, sizeof(quad));
    const __m256i words = _mm256_cvtepi8_epi16(_mm_set1_epi32(quad));
    for (__m256i& sum : pairs) {
      const auto* bytes = reinterpret_cast<const __m128i*>(codes);
      sum = _mm256_add_epi32(
          sum, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(bytes)), words));
      codes += kBytes;
    }
  }
  std::int32_t halves[2 * kGroup], sums[kGroup];
  std::memcpy(halves, pairs, sizeof(halves));
  for (std::size_t i = 0; i < kGroup; ++i) sums[i] = halves[2 * i] + halves[2 * i + 1];
  return scaled(sums, query.offset, scales, least, products);
}

// Four products of bytes and their sum in one instruction.
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vnni"))) std::uint32_t score_vnni(
    const std::uint8_t* codes, const CodedQuery& query, const float* scales, float least,
    float* products) {
  __m512i sum = _mm512_setzero_si512();
  for (std::size_t at = 0; at < query.codes.size(); at += kQuad, codes += kGroup * kQuad) {
    std::int32_t quad = 0;
    std::memcpy(&quad, query.codes.data() + at, sizeof(quad));
    sum = _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(codes), _mm512_set1_epi32(quad));
  }
  std::int32_t sums[kGroup];
  _mm512_storeu_si512(sums, sum);
  return scaled(sums, query.offset, scales, least, products);
}
#endif

ScoreGroup score_of([[maybe_unused]] KeyCodes::Kernel kernel) {
#if defined(__x86_64__)
  if (kernel == KeyCodes::Kernel::kVnni) return score_vnni;
  if (kernel == KeyCodes::Kernel::kAvx2) return score_avx2;
#endif
  return score_portable;
}

float encode(std::span<const float> row, std::int8_t* codes) {
  float most = 0;
  for (const float x : row) most = std::max(most, std::abs(x));
  for (std::size_t j = 0; j < row.size(); ++j) {
    codes[j] = most > 0 ? static_cast<std::int8_t>(std::lround(127.0f * row[j] / most)) : 0;
  }
  return most / 127.0f;
}

// The count-th largest, its bits found one by one: each by a plain loop, where a partition would
// branch on every value.
MEMSLOT_TARGET_CLONES("avx512f", "avx2", "default")
float largest(std::span<const float> values, std::size_t count, std::vector<std::uint32_t>& room) {
  constexpr std::uint32_t kSign = 1u << 31;  // so that the order of numbers is that of their bits
  room.resize(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(values[i]);
    room[i] = (bits & kSign) != 0 ? ~bits : bits | kSign;
  }
  std::uint32_t found = 0;
  for (std::uint32_t bit = kSign; bit != 0; bit >>= 1) {
    std::uint32_t at_least = 0;
    for (const std::uint32_t value : room) at_least += value >= (found | bit) ? 1 : 0;
    if (at_least >= count) found |= bit;
  }
  return std::bit_cast<float>((found & kSign) != 0 ? found & ~kSign : ~found);
}

// The best `count` of what is added, by row: most rows only meet one comparison, and what was added
// is cut now and then.
class Best {
 public:
  explicit Best(std::size_t count) : count_(count) {
    products_.reserve(kRoom * count + kGroup);
    rows_.reserve(kRoom * count + kGroup);
  }
  float least() const { return least_; }
  // One above least(), with a row above all before.
  void add(float product, std::size_t row) {
    products_.push_back(product);
    rows_.push_back(static_cast<std::uint32_t>(row));
  }
  void make_room() {
    if (products_.size() >= kRoom * count_) cut();
  }
  std::vector<std::pair<float, std::uint32_t>> take() {
    cut();
    std::vector<std::pair<float, std::uint32_t>> out;
    for (std::size_t i = 0; i < rows_.size(); ++i) out.emplace_back(products_[i], rows_[i]);
    return out;
  }

 private:
  static constexpr std::size_t kRoom = 3;
  void cut() {
    if (products_.size() <= count_) return;
    least_ = largest(products_, count_, room_);
    const auto above = static_cast<std::size_t>(std::count_if(
        products_.begin(), products_.end(), [&](float product) { return product > least_; }));
    std::size_t equal = count_ - above, kept = 0;  // of equal ones the first
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const float product = products_[i];
      const std::size_t tied = product == least_ && equal > 0 ? 1 : 0;
      products_[kept] = product;
      rows_[kept] = rows_[i];
      kept += (product > least_ ? 1 : 0) + tied;  // without a branch: none could be foretold
      equal -= tied;
    }
    products_.resize(count_);
    rows_.resize(count_);
  }
  std::size_t count_;
  std::vector<float> products_;
  std::vector<std::uint32_t> rows_, room_;
  float least_ = std::numeric_limits<float>::lowest();
};

}  // namespace

std::vector<KeyCodes::Kernel> KeyCodes::kernels() {
  std::vector<Kernel> out{Kernel::kPortable};
#if defined(__x86_64__)
  const auto has = [](int supported) { return supported > 0; };
  if (has(__builtin_cpu_supports("avx2"))) out.push_back(Kernel::kAvx2);
  if (has(__builtin_cpu_supports("avx512bw")) && has(__builtin_cpu_supports("avx512dq")) &&
      has(__builtin_cpu_supports("avx512vnni"))) {
    out.push_back(Kernel::kVnni);
  }
#endif
  return out;
}

KeyCodes::KeyCodes(std::size_t dim, Kernel kernel) : dim_(dim), kernel_(kernel) {}

void KeyCodes::add(std::span<const float> row) {
  MEMSLOT_CHECK(row.size() == dim_);
  const std::size_t at = rows_ % kGroup;
  if (at == 0) {
    codes_.resize(codes_.size() + kGroup * width(), kZero);
    scales_.resize(scales_.size() + kGroup, std::numeric_limits<float>::quiet_NaN());
  }
  std::vector<std::int8_t> codes(dim_);
  scales_[rows_] = encode(row, codes.data());
  std::uint8_t* const group = codes_.data() + (rows_ - at) * width();
  for (std::size_t j = 0; j < dim_; ++j) {
    group[(j / kQuad * kGroup + at) * kQuad + j % kQuad] =
        static_cast<std::uint8_t>(codes[j] + kZero);
  }
  ++rows_;
}

void KeyCodes::drop(std::size_t row) { scales_[row] = std::numeric_limits<float>::quiet_NaN(); }

void KeyCodes::clear() {
  rows_ = 0;
  codes_.clear();
  scales_.clear();
}

std::size_t KeyCodes::width() const { return (dim_ + kQuad - 1) / kQuad * kQuad; }

std::vector<std::pair<float, std::uint32_t>> KeyCodes::scan(std::span<const float> query,
                                                            std::size_t count) const {
  MEMSLOT_CHECK(query.size() == dim_ && count > 0);
  const ScoreGroup score = score_of(kernel_);
  CodedQuery coded{std::vector<std::int8_t>(width()), 0};
  const float query_scale = encode(query, coded.codes.data());
  for (const std::int8_t c : coded.codes) coded.offset += kZero * c;
  Best best(count);
  float products[kGroup];
  for (std::size_t from = 0; from < rows_; from += kGroup) {
    std::uint32_t above =
        score(codes_.data() + from * width(), coded, scales_.data() + from, best.least(), products);
    if (above == 0) continue;
    for (; above != 0; above &= above - 1) {
      const auto i = static_cast<std::size_t>(std::countr_zero(above));
      best.add(products[i], from + i);
    }
    best.make_room();
  }
  auto found = best.take();
  for (auto& [product, row] : found) product *= query_scale;
  return found;
}

}  // namespace memslot
