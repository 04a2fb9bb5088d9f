#include "controller/step/key_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "rl/whitening.h"  // kMaxReducedDim
#include "shared/base/error.h"
#include "shared/base/target_clones.h"

namespace memslot {
namespace {

constexpr std::size_t kBlock = 256;  // rows scored at once
constexpr std::size_t kGroup = 16;   // rows that are passed over at once
constexpr int kZero = 128;           // the stored code of 0

// Products of bytes fit 16 bits, and the sums of at most 2^16 of them 32.
template <class Query>
[[gnu::always_inline]] inline void add_up(const std::uint8_t* rows, std::size_t count,
                                          const Query* query, std::size_t dim, std::int32_t* out) {
  for (std::size_t r = 0; r < count; ++r) {
    const std::uint8_t* row = rows + r * dim;
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < dim; ++j) sum += std::int32_t{row[j]} * std::int32_t{query[j]};
    out[r] = sum;
  }
}

// The usual width as a constant, so that its loop is unrolled.
template <class Query>
[[gnu::always_inline]] inline void sums(const std::uint8_t* rows, std::size_t count,
                                        const Query* query, std::size_t dim, std::int32_t* out) {
  constexpr std::size_t kUsual = kMaxReducedDim;
  dim == kUsual ? add_up(rows, count, query, kUsual, out) : add_up(rows, count, query, dim, out);
}

// Cloned per instruction set: the loader picks one.
MEMSLOT_TARGET_CLONES("avx2", "default")
void sums_of_words(const std::uint8_t* rows, std::size_t count, const std::int16_t* query,
                   std::size_t dim, std::int32_t* out) {
  sums(rows, count, query, dim, out);
}

#if defined(__x86_64__)
// Four bytes by four bytes in one instruction.
__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) void sums_of_bytes(
    const std::uint8_t* rows, std::size_t count, const std::int8_t* query, std::size_t dim,
    std::int32_t* out) {
  sums(rows, count, query, dim, out);
}

bool multiplies_bytes() {
  static const bool has = __builtin_cpu_supports("avx512bw") > 0 &&
                          __builtin_cpu_supports("avx512vl") > 0 &&
                          __builtin_cpu_supports("avx512vnni") > 0;
  return has;
}
#else
void sums_of_bytes(const std::uint8_t*, std::size_t, const std::int8_t*, std::size_t,
                   std::int32_t*) {}
bool multiplies_bytes() { return false; }
#endif

// A query in the two widths that the machines multiply in.
struct CodedQuery {
  std::vector<std::int16_t> words;
  std::vector<std::int8_t> bytes;
  std::int32_t offset = 0;  // what the stored codes' zero adds to each sum
};

void score(const std::uint8_t* rows, std::size_t count, const CodedQuery& query,
           std::int32_t* out) {
  const std::size_t dim = query.words.size();
  if (multiplies_bytes()) {
    sums_of_bytes(rows, count, query.bytes.data(), dim, out);
  } else {
    sums_of_words(rows, count, query.words.data(), dim, out);
  }
}

// products[i] = (sum - offset) * scale; how many of a group's are above `least`.
MEMSLOT_TARGET_CLONES("avx512f", "avx2", "default")
int scale_group(const std::int32_t* sums, const float* scales, std::int32_t offset, float least,
                float* products) {
  int above = 0;
  for (std::size_t i = 0; i < kGroup; ++i) {
    products[i] = static_cast<float>(sums[i] - offset) * scales[i];
    above += products[i] > least ? 1 : 0;
  }
  return above;
}

float encode(std::span<const float> row, std::int16_t* codes) {
  float most = 0;
  for (const float x : row) most = std::max(most, std::abs(x));
  for (std::size_t j = 0; j < row.size(); ++j) {
    codes[j] = most > 0 ? static_cast<std::int16_t>(std::lround(127.0f * row[j] / most)) : 0;
  }
  return most / 127.0f;
}

// The best `count` of what is offered, in a buffer that is cut half-way instead of a heap: most
// rows only meet one comparison.
class Best {
 public:
  using Found = std::pair<float, std::uint32_t>;
  explicit Best(std::size_t count) : count_(count) { found_.reserve(kRoom * count + kBlock); }
  float least() const { return least_; }
  void offer(float product, std::size_t row) {
    if (product > least_) found_.emplace_back(product, static_cast<std::uint32_t>(row));
  }
  void make_room() {
    if (found_.size() >= kRoom * count_) cut();
  }
  std::vector<Found> take() {
    cut();
    std::sort(found_.begin(), found_.end(), better);
    return std::move(found_);
  }

 private:
  static constexpr std::size_t kRoom = 3;
  static bool better(const Found& a, const Found& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  }
  void cut() {
    if (found_.size() <= count_) return;
    const auto last = found_.begin() + static_cast<std::ptrdiff_t>(count_) - 1;
    std::nth_element(found_.begin(), last, found_.end(), better);
    found_.resize(count_);
    least_ = found_.back().first;
  }
  std::size_t count_;
  std::vector<Found> found_;
  float least_ = std::numeric_limits<float>::lowest();
};

}  // namespace

void KeyCodes::add(std::span<const float> row) {
  MEMSLOT_CHECK(row.size() == dim_);
  std::vector<std::int16_t> codes(dim_);
  scales_.push_back(encode(row, codes.data()));
  for (const std::int16_t c : codes) codes_.push_back(static_cast<std::uint8_t>(c + kZero));
}

void KeyCodes::drop(std::size_t row) { scales_[row] = std::numeric_limits<float>::quiet_NaN(); }

void KeyCodes::clear() {
  codes_.clear();
  scales_.clear();
}

std::vector<std::pair<float, std::uint32_t>> KeyCodes::scan(std::span<const float> query,
                                                            std::size_t count) const {
  MEMSLOT_CHECK(query.size() == dim_ && count > 0);
  CodedQuery coded{std::vector<std::int16_t>(dim_), {}, 0};
  const float query_scale = encode(query, coded.words.data());
  for (const std::int16_t c : coded.words) {
    coded.bytes.push_back(static_cast<std::int8_t>(c));
    coded.offset += kZero * c;
  }
  Best best(count);
  std::int32_t sums[kBlock];
  float products[kGroup];
  for (std::size_t from = 0; from < rows(); from += kBlock) {
    const std::size_t n = std::min(kBlock, rows() - from);
    score(codes_.data() + from * dim_, n, coded, sums);
    std::size_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      const float* scales = scales_.data() + from + i;
      if (scale_group(sums + i, scales, coded.offset, best.least(), products) == 0) continue;
      for (std::size_t j = 0; j < kGroup; ++j) best.offer(products[j], from + i + j);
    }
    for (; i < n; ++i) {
      best.offer(static_cast<float>(sums[i] - coded.offset) * scales_[from + i], from + i);
    }
    best.make_room();
  }
  auto found = best.take();
  for (auto& [product, row] : found) product *= query_scale;
  return found;
}

}  // namespace memslot
