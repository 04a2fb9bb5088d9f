// Writes a synthetic gain table: make_synthetic_table FILE [MODEL_DIGEST WIDTH].
#include <cstdio>
#include <cstdlib>

#include "tests/rl/synthetic_table.h"

int main(int argc, char** argv) {
  if (argc != 2 && argc != 4) return 2;
  memslot::testing_support::SyntheticOptions options;
  options.train = 5;
  options.streams_each = 2;
  options.all_kinds = true;
  if (argc == 4) {
    options.model = argv[2];
    options.dim = static_cast<std::uint32_t>(std::strtoul(argv[3], nullptr, 10));
  }
  const auto saved = memslot::testing_support::SyntheticTable(options).take().save(argv[1]);
  if (!saved) std::fprintf(stderr, "%s\n", saved.error().message.c_str());
  return saved ? 0 : 1;
}
