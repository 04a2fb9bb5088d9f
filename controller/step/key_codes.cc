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

constexpr std::size_t kHalf = 16;          // rows side by side: one in each byte's low bits, and
constexpr std::size_t kGroup = 2 * kHalf;  // one more in its high bits
constexpr std::size_t kQuad = 4;           // dimensions side by side: what one instruction adds up
constexpr int kMostCode = 7, kMostQueryCode = 127;
constexpr int kZero = 8;  // the stored code of 0

struct CodedQuery {
  std::vector<std::int8_t> codes;  // (quads, kQuad): zeros behind the last dimension
  std::int32_t offset = 0;         // what the stored codes' zero adds to each sum
};

// Groups one behind the other, as KeyCodes keeps them.
struct CodedRows {
  const std::uint8_t* codes;  // (groups, quads, kHalf, kQuad)
  const float* scales;        // (groups, kGroup); not a number: gone
  std::size_t groups;
};

// One set of instructions. `products` are (groups, kGroup).
struct Instructions {
  // products = (sum - offset) * scale
  void (*score)(const CodedRows& rows, const CodedQuery& query, float* products);
  // above (groups): a bit for each product of a group that is above `least`
  void (*mark)(const float* products, std::size_t groups, float least, std::uint32_t* above);
};

[[gnu::always_inline]] inline void scale(const std::int32_t* sums, std::int32_t offset,
                                         const float* scales, float* products) {
  for (std::size_t i = 0; i < kGroup; ++i) {
    products[i] = static_cast<float>(sums[i] - offset) * scales[i];
  }
}

[[gnu::always_inline]] inline void mark(const float* products, std::size_t groups, float least,
                                        std::uint32_t* above) {
  for (std::size_t group = 0; group < groups; ++group) {
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < kGroup; ++i) {
      bits |= (products[group * kGroup + i] > least ? 1u : 0u) << i;
    }
    above[group] = bits;
  }
}

void score_portable(const CodedRows& rows, const CodedQuery& query, float* products) {
  const std::uint8_t* codes = rows.codes;
  for (std::size_t group = 0; group < rows.groups; ++group) {
    std::int32_t sums[kGroup] = {};
    for (std::size_t at = 0; at < query.codes.size(); at += kQuad, codes += kHalf * kQuad) {
      for (std::size_t i = 0; i < kHalf; ++i) {
        for (std::size_t j = 0; j < kQuad; ++j) {
          const std::int32_t pair = codes[i * kQuad + j], factor = query.codes[at + j];
          sums[i] += (pair & 15) * factor;
          sums[kHalf + i] += (pair >> 4) * factor;
        }
      }
    }
    scale(sums, query.offset, rows.scales + group * kGroup, products + group * kGroup);
  }
}

void mark_portable(const float* products, std::size_t groups, float least, std::uint32_t* above) {
  mark(products, groups, least, above);
}

#if defined(__x86_64__)
std::int32_t quad_of(const CodedQuery& query, std::size_t at) {
  std::int32_t quad = 0;
  std::memcpy(&quad, query.codes.data() + at, sizeof(quad));
  return quad;
}

// Products in 16 bits, two and two of them added to 32: two sums a row until the end.
__attribute__((target("avx2"))) void score_avx2(const CodedRows& rows, const CodedQuery& query,
                                                float* products) {
  constexpr std::size_t kParts = 4, kBytes = kHalf * kQuad / kParts;  // of four rows each
  const __m256i low_bits = _mm256_set1_epi16(15);
  const std::uint8_t* codes = rows.codes;
  for (std::size_t group = 0; group < rows.groups; ++group) {
    __m256i low[kParts] = {}, high[kParts] = {};
    for (std::size_t at = 0; at < query.codes.size(); at += kQuad) {
      const __m256i words = _mm256_cvtepi8_epi16(_mm_set1_epi32(quad_of(query, at)));
      for (std::size_t part = 0; part < kParts; ++part, codes += kBytes) {
        const auto* bytes = reinterpret_cast<const __m128i*>(codes);
        const __m256i pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes));
        low[part] = _mm256_add_epi32(low[part],
                                     _mm256_madd_epi16(_mm256_and_si256(pairs, low_bits), words));
        high[part] =
            _mm256_add_epi32(high[part], _mm256_madd_epi16(_mm256_srli_epi16(pairs, 4), words));
      }
    }
    std::int32_t halves[2 * kGroup], sums[kGroup];
    std::memcpy(halves, low, sizeof(low));
    std::memcpy(halves + kGroup, high, sizeof(high));
    for (std::size_t i = 0; i < kGroup; ++i) sums[i] = halves[2 * i] + halves[2 * i + 1];
    scale(sums, query.offset, rows.scales + group * kGroup, products + group * kGroup);
  }
}

__attribute__((target("avx2"))) void mark_avx2(const float* products, std::size_t groups,
                                               float least, std::uint32_t* above) {
  mark(products, groups, least, above);
}

// Four products and their sum in one instruction.
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vnni"))) void score_vnni(
    const CodedRows& rows, const CodedQuery& query, float* products) {
  const __m512i low_bits = _mm512_set1_epi8(15);
  const std::uint8_t* codes = rows.codes;
  for (std::size_t group = 0; group < rows.groups; ++group) {
    __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
    for (std::size_t at = 0; at < query.codes.size(); at += kQuad, codes += kHalf * kQuad) {
      const __m512i factors = _mm512_set1_epi32(quad_of(query, at));
      const __m512i pairs = _mm512_loadu_si512(codes);
      const __m512i upper = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), low_bits);
      low = _mm512_dpbusd_epi32(low, _mm512_and_si512(pairs, low_bits), factors);
      high = _mm512_dpbusd_epi32(high, upper, factors);
    }
    std::int32_t sums[kGroup];
    _mm512_storeu_si512(sums, low);
    _mm512_storeu_si512(sums + kHalf, high);
    scale(sums, query.offset, rows.scales + group * kGroup, products + group * kGroup);
  }
}

__attribute__((target("avx512f"))) void mark_avx512(const float* products, std::size_t groups,
                                                    float least, std::uint32_t* above) {
  const __m512 lanes = _mm512_set1_ps(least);
  for (std::size_t group = 0; group < groups; ++group, products += kGroup) {
    const __m512 low = _mm512_loadu_ps(products), high = _mm512_loadu_ps(products + kHalf);
    above[group] = std::uint32_t{_mm512_cmp_ps_mask(low, lanes, _CMP_GT_OQ)} |
                   std::uint32_t{_mm512_cmp_ps_mask(high, lanes, _CMP_GT_OQ)} << kHalf;
  }
}
#endif

Instructions kernel_of([[maybe_unused]] KeyCodes::Kernel kernel) {
#if defined(__x86_64__)
  if (kernel == KeyCodes::Kernel::kVnni) return {score_vnni, mark_avx512};
  if (kernel == KeyCodes::Kernel::kAvx2) return {score_avx2, mark_avx2};
#endif
  return {score_portable, mark_portable};
}

// codes = round(most_code x / max |x|); what one of them stands for.
float encode(std::span<const float> row, int most_code, std::int8_t* codes) {
  float most = 0;
  for (const float x : row) most = std::max(most, std::abs(x));
  const auto steps = static_cast<float>(most_code);
  for (std::size_t j = 0; j < row.size(); ++j) {
    codes[j] = most > 0 ? static_cast<std::int8_t>(std::lround(steps * row[j] / most)) : 0;
  }
  return most / steps;
}

constexpr float kLeast = std::numeric_limits<float>::lowest();

// The count-th largest, what is not a number left out; kLeast where there are fewer. Its bits are
// found one by one: each by a plain loop, where a partition would branch on every value.
MEMSLOT_TARGET_CLONES("avx512f", "avx2", "default")
float largest(std::span<const float> values, std::size_t count) {
  constexpr std::uint32_t kSign = 1u << 31;  // so that the order of numbers is that of their bits
  const auto ordered = [](std::uint32_t bits) {
    return (bits & kSign) != 0 ? ~bits : bits | kSign;
  };
  std::vector<std::uint32_t> order(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float number = values[i] >= kLeast ? values[i] : kLeast;
    order[i] = ordered(std::bit_cast<std::uint32_t>(number));
  }
  std::uint32_t found = 0;
  for (std::uint32_t bit = kSign; bit != 0; bit >>= 1) {
    std::uint32_t at_least = 0;
    for (const std::uint32_t value : order) at_least += value >= (found | bit) ? 1 : 0;
    if (at_least >= count) found |= bit;
  }
  const std::uint32_t least = ordered(std::bit_cast<std::uint32_t>(kLeast));
  found = std::max(found, least);
  return std::bit_cast<float>((found & kSign) != 0 ? found & ~kSign : ~found);
}

using Found = std::vector<std::pair<float, std::uint32_t>>;

Found above(const Instructions& kernel, std::span<const float> products, float least) {
  std::vector<std::uint32_t> bits(products.size() / kGroup);
  kernel.mark(products.data(), bits.size(), least, bits.data());
  Found out;
  for (std::size_t group = 0; group < bits.size(); ++group) {
    for (std::uint32_t left = bits[group]; left != 0; left &= left - 1) {
      const std::size_t row = group * kGroup + static_cast<std::size_t>(std::countr_zero(left));
      out.emplace_back(products[row], static_cast<std::uint32_t>(row));
    }
  }
  return out;
}

// A product that some more than `count` are above, most likely; by a sample.
float enough(std::span<const float> products, std::size_t count) {
  constexpr std::size_t kOneOf = 16;
  std::vector<float> sample;
  for (std::size_t i = 0; i < products.size(); i += kOneOf) sample.push_back(products[i]);
  const double expected = static_cast<double>(count) / kOneOf;  // of the best ones in the sample
  return largest(sample, static_cast<std::size_t>(expected + 3 * std::sqrt(expected) + 2));
}

// The best `count`, by row; of equal ones the first.
Found best_of(const Instructions& kernel, std::span<const float> products, std::size_t count) {
  Found found = above(kernel, products, enough(products, count));
  if (found.size() < count) found = above(kernel, products, kLeast);
  if (found.size() <= count) return found;
  std::vector<float> values;
  values.reserve(found.size());
  for (const auto& [product, row] : found) values.push_back(product);
  const float least = largest(values, count);
  const auto better =
      std::count_if(values.begin(), values.end(), [&](float product) { return product > least; });
  std::size_t equal = count - static_cast<std::size_t>(better);
  std::erase_if(found, [&](const auto& one) {
    if (one.first != least) return one.first < least;
    if (equal == 0) return true;
    --equal;
    return false;
  });
  return found;
}

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
    codes_.resize(codes_.size() + kHalf * width(), kZero << 4 | kZero);
    scales_.resize(scales_.size() + kGroup, std::numeric_limits<float>::quiet_NaN());
  }
  std::vector<std::int8_t> codes(dim_);
  scales_[rows_] = encode(row, kMostCode, codes.data());
  std::uint8_t* const group = codes_.data() + (rows_ - at) / 2 * width();
  const bool high = at >= kHalf;
  for (std::size_t j = 0; j < dim_; ++j) {
    std::uint8_t& pair = group[(j / kQuad * kHalf + at % kHalf) * kQuad + j % kQuad];
    const auto code = static_cast<unsigned>(codes[j] + kZero);
    pair = static_cast<std::uint8_t>(high ? code << 4 | (pair & 15u) : (pair & 240u) | code);
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
  const Instructions kernel = kernel_of(kernel_);
  CodedQuery coded{std::vector<std::int8_t>(width()), 0};
  const float query_scale = encode(query, kMostQueryCode, coded.codes.data());
  for (const std::int8_t c : coded.codes) coded.offset += kZero * c;
  thread_local std::vector<float> products;  // kept: its pages would be made anew each time
  products.resize(scales_.size());
  kernel.score({codes_.data(), scales_.data(), scales_.size() / kGroup}, coded, products.data());
  Found found = best_of(kernel, products, count);
  for (auto& [product, row] : found) product *= query_scale;
  return found;
}

}  // namespace memslot
