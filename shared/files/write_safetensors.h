#pragma once
// Makes a file in the safetensors format (safetensors.h): f32 tensors by name, and texts beside
// them. The same content always gives the same bytes.
//
// Threads: pure function.
#include <map>
#include <string>

#include "shared/tensor/tensor.h"

namespace memslot {

// The header is padded with blanks so that data begins on a multiple of eight bytes, as the
// format's own writer does.
std::string safetensors_bytes(const std::map<std::string, HostTensor>& tensors,
                              const std::map<std::string, std::string>& metadata);

}  // namespace memslot
