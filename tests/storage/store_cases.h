#pragma once
// Both stores, as the parameter of a contract test.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "storage/open_store.h"
#include "tests/support/temporary_folder.h"

namespace memslot {

inline constexpr TimePoint kNoDeadline = TimePoint::max();

class EachStore : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<BankStore> open(const StoreOptions& options = {}) {
    auto store =
        open_store(GetParam() == "memory" ? "memory:" : directory_.path(), options, clock_);
    EXPECT_TRUE(store) << (store ? "" : store.error().message);
    return store ? std::move(store).value() : nullptr;
  }
  SystemClock clock_;
  testing_support::TemporaryFolder directory_;
};

inline std::string store_name(const testing::TestParamInfo<std::string>& info) {
  return info.param;
}

#define MEMSLOT_EACH_STORE(suite) \
  INSTANTIATE_TEST_SUITE_P(Stores, suite, testing::Values("memory", "rocksdb"), store_name)

#define EXPECT_ERROR(expression, expected_code)                                      \
  do {                                                                               \
    const auto& result_ = (expression);                                              \
    ASSERT_FALSE(result_.has_value()) << #expression;                                \
    EXPECT_EQ(error_code_name(result_.error().code), error_code_name(expected_code)) \
        << result_.error().message;                                                  \
  } while (false)

#define ASSERT_OK(expression)                                    \
  do {                                                           \
    const auto& result_ = (expression);                          \
    ASSERT_TRUE(result_.has_value()) << result_.error().message; \
  } while (false)

}  // namespace memslot
