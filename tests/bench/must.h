#pragma once
// For programs that measure: what cannot go on ends the program, with its name and the reason.
#include <errno.h>  // program_invocation_short_name

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "shared/base/error.h"

namespace memslot::bench {

[[noreturn]] inline void give_up(const Error& error) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, error.message.c_str());
  std::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) give_up(result.error());
  return std::move(result).value();
}

inline void must(Status status) {
  if (!status) give_up(status.error());
}

}  // namespace memslot::bench
