#pragma once
// What a gain table needs of an exported memory (docs/formats/memory.md, "Export"): the version and
// its keys.
//
// Errors:  kCorruption, naming what disagrees.
// Threads: pure function.
#include <span>

#include "shared/memory/record.h"

namespace memslot::gains_program {

struct ExportedMemory {
  MemoryVersion version;
  MemoryKeys keys;  // none: no rows
};
Result<ExportedMemory> read_export(std::span<const std::byte> file);

}  // namespace memslot::gains_program
