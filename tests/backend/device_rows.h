#pragma once
// Matrices in device memory with a stride of their own, filled from and read back as floats.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "generator/backend/open_backend.h"

namespace memslot::testing_support {

inline std::vector<float> normal_values(std::size_t count, unsigned seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> out(count);
  for (auto& value : out) value = normal(random);
  return out;
}

inline std::vector<double> doubles(const std::vector<float>& from) {
  return {from.begin(), from.end()};
}

// What a float becomes when it is stored as `dtype`.
inline float as_stored(float value, DType dtype) {
  return dtype == DType::kBF16 ? bf16_to_f32(f32_to_bf16(value)) : value;
}

class DeviceRows {
 public:
  DeviceRows(Backend& backend, std::int64_t rows, std::int64_t cols, DType dtype = DType::kF32,
             std::int64_t padding = 3)
      : buffer_(backend.alloc(static_cast<std::size_t>(rows * (cols + padding)) * dtype_size(dtype))
                    .value()),
        matrix_{buffer_.data(), dtype, rows, cols, cols + padding} {
    std::memset(buffer_.data(), 0xff, buffer_.bytes());  // NaN: what nobody wrote must not be read
  }
  DeviceRows(Backend& backend, std::int64_t rows, std::int64_t cols,
             const std::vector<float>& values, DType dtype = DType::kF32)
      : DeviceRows(backend, rows, cols, dtype) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c)
        set(r, c, values[static_cast<std::size_t>(r * cols + c)]);
    }
  }
  const Matrix& matrix() const { return matrix_; }
  // Dense.
  std::vector<float> floats() const {
    std::vector<float> out;
    for (std::int64_t r = 0; r < matrix_.rows; ++r) {
      for (std::int64_t c = 0; c < matrix_.cols; ++c) out.push_back(at(r, c));
    }
    return out;
  }
  float at(std::int64_t r, std::int64_t c) const {
    const std::int64_t i = r * matrix_.stride + c;
    return matrix_.dtype == DType::kBF16 ? bf16_to_f32(matrix_.bf16()[i]) : matrix_.f32()[i];
  }

 private:
  void set(std::int64_t r, std::int64_t c, float value) {
    const std::int64_t i = r * matrix_.stride + c;
    if (matrix_.dtype == DType::kBF16) {
      matrix_.bf16()[i] = f32_to_bf16(value);
    } else {
      matrix_.f32()[i] = value;
    }
  }
  Buffer buffer_;
  Matrix matrix_;
};

// |got - want| <= tolerance everywhere, and nothing is NaN.
inline void expect_near_all(const std::vector<float>& got, const std::vector<double>& want,
                            double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  double worst = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - want[i]);
    if (!(difference <= worst)) worst = difference, where = i;
  }
  EXPECT_LE(worst, tolerance) << "at " << where << ": got " << got[where] << ", want "
                              << want[where];
}

inline double largest(const std::vector<double>& values) {
  double out = 0;
  for (const double v : values) out = std::max(out, std::abs(v));
  return out;
}

// Unit roundoff: half the distance of neighbouring values, relative; 8 and 24 significant bits.
inline double rounding(DType dtype) { return dtype == DType::kBF16 ? 0x1p-8 : 0x1p-24; }

inline std::vector<DType> matrix_dtypes(const Backend& backend) {
  if (backend.info().bf16) return {DType::kF32, DType::kBF16};
  return {DType::kF32};
}

}  // namespace memslot::testing_support
