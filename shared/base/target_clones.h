#pragma once
// MEMSLOT_TARGET_CLONES("avx2", "default"): compiles a function once per instruction set; the
// loader picks one. Not under ThreadSanitizer: the loader asks before its runtime has started, and
// the program ends before main().
#if defined(__SANITIZE_THREAD__)
#define MEMSLOT_TARGET_CLONES(...)
#else
#define MEMSLOT_TARGET_CLONES(...) __attribute__((target_clones(__VA_ARGS__)))
#endif
