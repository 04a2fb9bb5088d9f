#pragma once
// Include first in every file with Highway kernels: which instruction sets are compiled.
//
// AVX2 and AVX-512 are what the rest of the system runs on; Highway's scalar code is the fallback.
#define HWY_DISABLED_TARGETS (HWY_AVX3_DL | HWY_SSE4 | HWY_SSSE3)
