#include "generator/cpu/cpu_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

namespace memslot {
namespace {

constexpr int kMaxThreads = 1024;

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

std::string isa_name(int isa) {
  struct Named {
    int isa;
    const char* name;
  };
  // Best first; each value contains the bits of what it includes.
  constexpr Named kNames[] = {{dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"},
                              {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
                              {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni"},
                              {dnnl_cpu_isa_avx512_core, "avx512_core"},
                              {dnnl_cpu_isa_avx2_vnni, "avx2_vnni"},
                              {dnnl_cpu_isa_avx2, "avx2"},
                              {dnnl_cpu_isa_avx, "avx"},
                              {dnnl_cpu_isa_sse41, "sse41"}};
  for (const auto& known : kNames) {
    if ((isa & known.isa) == known.isa) return known.name;
  }
  return "generic";
}

bool native_bf16(int isa) {
  return (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

// Whether oneDNN runs its "brg" code, which is row-invariant, for one row and for many.
bool runs_brg(cpu::MatmulCache& matmul, DType dtype) {
  for (const std::int64_t m : {1, 3, 64, 512}) {
    for (const bool accumulate : {false, true}) {
      const cpu::MatmulShape shape{.m = m,
                                   .n = 192,
                                   .k = 64,
                                   .x = dtype,
                                   .w = dtype,
                                   .y = DType::kF32,
                                   .x_row = 64,
                                   .y_row = 192,
                                   .accumulate = accumulate};
      if (!matmul.implementation(shape).starts_with("brg")) return false;
    }
  }
  return true;
}

}  // namespace

CpuBackend::CpuBackend(int threads) : matmul_(threads) { info_.threads = threads; }
CpuBackend::~CpuBackend() = default;

Result<std::unique_ptr<CpuBackend>> CpuBackend::open(int threads) {
  if (threads < 0 || threads > kMaxThreads) {
    return invalid("backend threads", "0 (all cores) to 1024", threads);
  }
  const int all = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  auto backend = std::unique_ptr<CpuBackend>(new CpuBackend(threads == 0 ? all : threads));
  backend->probe();
  return backend;
}

void CpuBackend::probe() {
  const int isa = static_cast<int>(dnnl::get_effective_cpu_isa());
  const auto* version = dnnl::version();
  info_.name = "cpu";
  info_.device = processor_name();
  info_.isa = isa_name(isa);
  info_.library = "oneDNN " + std::to_string(version->major) + "." +
                  std::to_string(version->minor) + "." + std::to_string(version->patch);
  info_.bf16 = native_bf16(isa);
  info_.row_invariant =
      runs_brg(matmul_, DType::kF32) && (!info_.bf16 || runs_brg(matmul_, DType::kBF16));
}

Result<Buffer> CpuBackend::alloc(std::size_t bytes) {
  constexpr std::size_t kAlignment = 64;  // a cache line, and an AVX-512 vector
  const std::size_t padded = (std::max<std::size_t>(bytes, 1) + kAlignment - 1) & ~(kAlignment - 1);
  void* data = padded < bytes ? nullptr : std::aligned_alloc(kAlignment, padded);
  if (data == nullptr) {
    return Error{ErrorCode::kNoSpace,
                 "device memory: expected " + std::to_string(bytes) + " bytes, found none free"};
  }
  return Buffer(data, bytes, [](void* p, std::size_t) { std::free(p); });
}

Status CpuBackend::upload(void* to, std::span<const std::byte> from) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
  return ok();
}

Status CpuBackend::download(std::span<std::byte> to, const void* from) {
  if (!to.empty()) std::memcpy(to.data(), from, to.size());
  return ok();
}

void CpuBackend::trim() {
  for (Buffer& buffer : scratch_) buffer = Buffer{};
  matmul_.clear();
}

std::size_t CpuBackend::kept_bytes() const {
  std::size_t bytes = 0;
  for (const Buffer& buffer : scratch_) bytes += buffer.bytes();
  return bytes;
}

Matrix CpuBackend::scratch(std::size_t which, DType dtype, std::int64_t row_count,
                           std::int64_t cols) {
  auto& buffer = scratch_.at(which);
  const std::size_t bytes = static_cast<std::size_t>(row_count * cols) * dtype_size(dtype);
  if (buffer.bytes() < bytes) {
    buffer = Buffer();
    auto grown = alloc(bytes);
    MEMSLOT_CHECK(grown.has_value());  // the operations themselves have no way to report it
    buffer = std::move(grown.value());
  }
  return {buffer.data(), dtype, row_count, cols, cols};
}

// Everything runs in place and in order: an event is over when it is recorded.
Event CpuBackend::record() { return ++events_; }
void CpuBackend::wait(Event) {}
void CpuBackend::synchronize() {}

}  // namespace memslot
