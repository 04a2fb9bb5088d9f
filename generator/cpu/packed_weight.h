#pragma once
// A linear map's weights in oneDNN's blocked layout, in memory of its own or (storage empty) in
// that of a map which it is a part of.
//
// Threads: immutable after pack(); oneDNN only reads the memory object.
#include "generator/backend/backend.h"
#include "generator/cpu/matmul_cache.h"

namespace memslot::cpu {

class CpuPackedWeight final : public PackedWeight {
 public:
  CpuPackedWeight(Buffer storage, dnnl::engine engine, dnnl::memory memory, std::int64_t inputs,
                  std::int64_t outputs, DType dtype)
      : storage_(std::move(storage)),
        engine_(std::move(engine)),
        memory_(std::move(memory)),
        inputs_(inputs),
        outputs_(outputs),
        dtype_(dtype) {}

  std::int64_t inputs() const override { return inputs_; }
  std::int64_t outputs() const override { return outputs_; }
  DType dtype() const override { return dtype_; }
  std::size_t bytes() const override { return storage_.bytes(); }
  const void* data() const override { return memory_.get_data_handle(); }
  const dnnl::memory& memory() const { return memory_; }

 private:
  Buffer storage_;
  dnnl::engine engine_;  // oneDNN's memory objects do not keep theirs alive
  dnnl::memory memory_;  // a view of storage_, or of another's
  std::int64_t inputs_, outputs_;
  DType dtype_;
};

}  // namespace memslot::cpu
