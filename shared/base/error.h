#pragma once
// Errors as values. Everything that a peer, a file or a user can cause is a Result<T>;
// MEMSLOT_CHECK is for our own bugs only. No exception crosses a folder.
//
// A message says what, expected and found: "gguf magic: expected 'GGUF', found 'GGML'
// (model.gguf)".
//
// Threads: values; share freely.
#include <boost/outcome/basic_result.hpp>  // result.hpp also brings Boost.Exception: 2 s a unit
#include <boost/outcome/policy/terminate.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace memslot {

// Values are on the wire (wire/codec.cc) and map to exit codes (exit_code()); append only.
enum class ErrorCode : int {
  kInvalidArgument = 1,  // the caller's input is wrong
  kNotFound = 2,         // no such record, file, session; also what another namespace's looks like
  kCorruption = 3,       // bytes that fail a digest, a verifier or a limit
  kMismatch = 4,         // well-formed, but for another model, slot, kind, size or protocol version
  kConflict = 5,         // a compare-and-set lost: the head moved
  kIndeterminate = 6,    // the outcome of a write is unknown; re-read the head
  kUnavailable = 7,      // the peer or engine is not there (now)
  kTimeout = 8,          // a deadline passed
  kOverloaded = 9,       // a bounded queue is full
  kNoSpace = 10,         // disk full or quota reached
  kBusy = 11,            // a port or a bank is held by another process
  kIo = 12,              // the operating system failed a read or write
  kNotSupported = 13,    // understood, but this build or machine cannot do it
  kCancelled = 14,       // stop was asked for
  kPermission = 15,      // the client key or token does not allow it
  kInternal = 16,        // a bug on the other side of an interface
};

// Stable lower-case name of a code, e.g. "not_found"; used in JSON and logs.
std::string_view error_code_name(ErrorCode code);

// The process exit code that stands for `code` (docs/operations.md lists them); 0 is success,
// 1 is an unexpected failure, 2 is a usage error.
int exit_code(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  // Same code, "context: message".
  Error with_context(std::string_view context) const;
};

template <class T>
using Result = boost::outcome_v2::basic_result<T, Error, boost::outcome_v2::policy::terminate>;
using Status = Result<void>;

inline Status ok() { return boost::outcome_v2::success(); }

// Error{kCorruption, "<what>: expected <expected>, found <found>"}; likewise mismatch().
template <class Expected, class Found>
Error corrupt(std::string_view what, const Expected& expected, const Found& found);
template <class Expected, class Found>
Error mismatch(std::string_view what, const Expected& expected, const Found& found);
template <class Expected, class Found>
Error invalid(std::string_view what, const Expected& expected, const Found& found);

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

namespace error_internal {
template <class T>
std::string text(const T& value) {
  if constexpr (std::is_convertible_v<T, std::string_view>) {
    return std::string(std::string_view(value));
  } else {
    return std::to_string(value);
  }
}
std::string expected_found(std::string_view what, const std::string& expected,
                           const std::string& found);
}  // namespace error_internal

template <class Expected, class Found>
Error corrupt(std::string_view what, const Expected& expected, const Found& found) {
  return {ErrorCode::kCorruption,
          error_internal::expected_found(what, error_internal::text(expected),
                                         error_internal::text(found))};
}
template <class Expected, class Found>
Error mismatch(std::string_view what, const Expected& expected, const Found& found) {
  return {ErrorCode::kMismatch, error_internal::expected_found(what, error_internal::text(expected),
                                                               error_internal::text(found))};
}
template <class Expected, class Found>
Error invalid(std::string_view what, const Expected& expected, const Found& found) {
  return {ErrorCode::kInvalidArgument,
          error_internal::expected_found(what, error_internal::text(expected),
                                         error_internal::text(found))};
}

}  // namespace memslot

// MEMSLOT_TRY(auto x, expr): x = the value, or return the error from the enclosing function; the
// first argument may also be something to assign to: MEMSLOT_TRY(out.field, expr).
// MEMSLOT_TRY(expr): for a Status. Several statements: not the body of an if without braces.
// (Boost 1.74's own OUTCOME_TRY cannot take "auto x", and Boost's later ones must.)
#define MEMSLOT_TRY(...) \
  MEMSLOT_TRY_PICK(__VA_ARGS__, N, N, N, N, N, N, N, 1, 0)(__COUNTER__, __VA_ARGS__)
#define MEMSLOT_TRY_PICK(_1, _2, _3, _4, _5, _6, _7, _8, which, ...) MEMSLOT_TRY_##which
#define MEMSLOT_TRY_NAME2(unique) memslot_try_##unique
#define MEMSLOT_TRY_NAME(unique) MEMSLOT_TRY_NAME2(unique)
#define MEMSLOT_TRY_1(unique, ...)                                                  \
  auto&& MEMSLOT_TRY_NAME(unique) = (__VA_ARGS__);                                  \
  if (!MEMSLOT_TRY_NAME(unique)) [[unlikely]] {                                     \
    return ::boost::outcome_v2::failure(                                            \
        static_cast<decltype(MEMSLOT_TRY_NAME(unique))&&>(MEMSLOT_TRY_NAME(unique)) \
            .assume_error());                                                       \
  }                                                                                 \
  static_assert(true)
#define MEMSLOT_TRY_N(unique, target, ...) \
  MEMSLOT_TRY_1(unique, __VA_ARGS__);      \
  target =                                 \
      static_cast<decltype(MEMSLOT_TRY_NAME(unique))&&>(MEMSLOT_TRY_NAME(unique)).assume_value()
#define MEMSLOT_CHECK(condition)                       \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::memslot::check_failed(#condition, __FILE__, __LINE__))
