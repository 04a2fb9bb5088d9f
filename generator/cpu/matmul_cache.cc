#include "generator/cpu/matmul_cache.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <string>

#include "shared/base/error.h"

namespace memslot::cpu {

struct MatmulCache::Entry {
  dnnl::matmul primitive;
  dnnl::memory x, w, y, bias;  // w only for plain weights; handles are set for every call
  std::uint64_t used = 0;      // calls_ when it last ran
};

std::size_t MatmulShapeHash::operator()(const MatmulShape& s) const {
  std::size_t hash = 0;
  const auto mix = [&hash](std::int64_t value) {
    hash = (hash ^ static_cast<std::size_t>(value)) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 29;
  };
  mix(s.m), mix(s.n), mix(s.k);
  mix(static_cast<int>(s.x) | static_cast<int>(s.w) << 8 | static_cast<int>(s.y) << 16);
  mix(s.x_row), mix(s.x_col), mix(s.w_row), mix(s.w_col), mix(s.y_row);
  mix((s.bias ? 1 : 0) | (s.accumulate ? 2 : 0));
  return hash;
}

dnnl::memory::data_type dnnl_dtype(DType dtype) {
  MEMSLOT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  return dtype == DType::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

MatmulCache::MatmulCache(int threads)
    : threads_(threads), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
  dnnl::set_primitive_cache_capacity(0);  // oneDNN's own would hold a thousand more
}

MatmulCache::~MatmulCache() = default;

void MatmulCache::clear() { entries_.clear(); }

dnnl::memory::desc MatmulCache::pack_layout(std::int64_t k, std::int64_t n, DType dtype) {
  const std::lock_guard lock(layouts_mutex_);
  const MatmulShape key{.m = 1, .n = n, .k = k, .w = dtype};
  if (const auto found = layouts_.find(key); found != layouts_.end()) return found->second;
  omp_set_num_threads(threads_);  // oneDNN's choice of code looks at it
  const dnnl::memory::desc x({1, k}, dnnl_dtype(dtype), dnnl::memory::dims{k, 1});
  const dnnl::memory::desc w({k, n}, dnnl_dtype(dtype), dnnl::memory::format_tag::any);
  const dnnl::memory::desc y({1, n}, dnnl::memory::data_type::f32, dnnl::memory::dims{n, 1});
  const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(x, w, y), engine_);
  return layouts_.emplace(key, chosen.weights_desc()).first->second;
}

dnnl::matmul::primitive_desc MatmulCache::describe(const MatmulShape& s) {
  using Dims = dnnl::memory::dims;
  const bool packed = s.w_row == 0 && s.w_col == 0;
  const auto w_layout =
      packed ? pack_layout(s.k, s.n, s.w)
             : dnnl::memory::desc({s.k, s.n}, dnnl_dtype(s.w), Dims{s.w_row, s.w_col});
  omp_set_num_threads(threads_);
  const dnnl::memory::desc x({s.m, s.k}, dnnl_dtype(s.x), Dims{s.x_row, s.x_col});
  const dnnl::memory::desc y({s.m, s.n}, dnnl_dtype(s.y), Dims{s.y_row, 1});
  const dnnl::memory::desc bias({1, s.n}, dnnl::memory::data_type::f32, Dims{s.n, 1});
  dnnl::primitive_attr attributes;
  if (s.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const auto op =
      s.bias ? dnnl::matmul::desc(x, w_layout, bias, y) : dnnl::matmul::desc(x, w_layout, y);
  return {op, attributes, engine_, /*allow_empty=*/true};
}

std::string MatmulCache::implementation(const MatmulShape& shape) {
  const auto chosen = describe(shape);
  return chosen.get(/*allow_empty=*/true) == nullptr ? "" : chosen.impl_info_str();
}

std::unique_ptr<MatmulCache::Entry> MatmulCache::make(const MatmulShape& shape) {
  const auto chosen = describe(shape);
  MEMSLOT_CHECK(chosen.get(true) != nullptr);  // info().bf16 tells which types this machine has
  auto entry = std::make_unique<Entry>();
  entry->primitive = dnnl::matmul(chosen);
  entry->x = dnnl::memory(chosen.src_desc(), engine_, nullptr);
  if (shape.w_row != 0 || shape.w_col != 0) {
    entry->w = dnnl::memory(chosen.weights_desc(), engine_, nullptr);
  }
  entry->y = dnnl::memory(chosen.dst_desc(), engine_, nullptr);
  if (shape.bias) entry->bias = dnnl::memory(chosen.bias_desc(), engine_, nullptr);
  return entry;
}

MatmulCache::Entry& MatmulCache::find(const MatmulShape& shape) {
  ++calls_;
  if (const auto found = entries_.find(shape); found != entries_.end()) {
    found->second->used = calls_;
    return *found->second;
  }
  if (entries_.size() >= kMaxEntries) {
    entries_.erase(std::ranges::min_element(entries_, {},
                                            [](const auto& entry) { return entry.second->used; }));
  }
  Entry& made = *entries_.emplace(shape, make(shape)).first->second;
  made.used = calls_;
  return made;
}

void MatmulCache::run(const MatmulShape& shape, const void* x, const dnnl::memory* w,
                      const void* plain_w, void* y, const float* bias) {
  omp_set_num_threads(threads_);
  Entry& entry = find(shape);
  // oneDNN takes all handles as mutable; inputs are only read.
  entry.x.set_data_handle(const_cast<void*>(x));
  entry.y.set_data_handle(y);
  if (w == nullptr) entry.w.set_data_handle(const_cast<void*>(plain_w));
  std::array<dnnl_exec_arg_t, 4> arguments{{{DNNL_ARG_SRC, entry.x.get()},
                                            {DNNL_ARG_WEIGHTS, (w == nullptr ? entry.w : *w).get()},
                                            {DNNL_ARG_DST, entry.y.get()},
                                            {DNNL_ARG_BIAS, nullptr}}};
  if (shape.bias) {
    entry.bias.set_data_handle(const_cast<float*>(bias));
    arguments[3].memory = entry.bias.get();
  }
  const int count = shape.bias ? 4 : 3;
  const auto status =
      dnnl_primitive_execute(entry.primitive.get(), stream_.get(), count, arguments.data());
  MEMSLOT_CHECK(status == dnnl_success);
  stream_.wait();
}

}  // namespace memslot::cpu
