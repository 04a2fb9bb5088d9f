#pragma once
// The protocol's version, and what a message and the lists inside it may hold at most.
#include <cstddef>
#include <cstdint>

namespace memslot::wire {

inline constexpr std::uint16_t kProtocolVersion = 2;
inline constexpr std::size_t kMaxEnvelopeBytes = std::size_t{4} << 20;
inline constexpr std::size_t kMaxPartBytes = std::size_t{64} << 20;
inline constexpr std::size_t kMaxParts = 4;
// Entries of the lists inside one body; validate.h.
inline constexpr std::size_t kMaxSlots = 64;
inline constexpr std::size_t kMaxNamespaces = 1024;
inline constexpr std::size_t kMaxResidents = 16384;                   // added, removed: each
inline constexpr std::size_t kMaxHidden = 65536;                      // D
inline constexpr std::size_t kMaxChunks = 128;                        // of an observation
inline constexpr std::size_t kMaxChunkValues = std::size_t{1} << 19;  // in all of them: 2 MiB
inline constexpr std::size_t kMaxWordBytes = 256;  // names, jobs, tokens, kinds, verbs, phases

}  // namespace memslot::wire
