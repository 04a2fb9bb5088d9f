# The forward pass: Gpt, its weights and the key/value cache.
memslot_library(memslot_gpt
  SOURCES gpt.cc gpt_forward.cc gpt_weights.cc kv_cache.cc
  PUBLIC memslot_backend memslot_model_files memslot_memory)
