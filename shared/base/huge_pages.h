#pragma once
// std::vector<T, HugePages<T>>: for large arrays that are read in places all over them, where
// translating the address costs more than the read. From 2 MiB on the memory is aligned to huge
// pages and the kernel is asked for them; without them it is memory like any other.
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>

namespace memslot {

template <class T>
class HugePages {
 public:
  using value_type = T;
  HugePages() = default;
  template <class U>
  HugePages(const HugePages<U>&) {}

  T* allocate(std::size_t n) {
    const std::size_t bytes = n * sizeof(T);
    if (bytes < kPage) return static_cast<T*>(::operator new(bytes));
    const std::size_t whole = (bytes + kPage - 1) / kPage * kPage;
    void* const memory = std::aligned_alloc(kPage, whole);
    if (memory == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    static_cast<void>(::madvise(memory, whole, MADV_HUGEPAGE));  // may be switched off
#endif
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t n) {
    n * sizeof(T) < kPage ? ::operator delete(memory) : std::free(memory);
  }
  template <class U>
  bool operator==(const HugePages<U>&) const {
    return true;
  }

 private:
  static constexpr std::size_t kPage = std::size_t{2} << 20;
};

}  // namespace memslot
