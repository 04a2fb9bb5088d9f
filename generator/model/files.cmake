memslot_library(memslot_model_files
  SOURCES config.cc gguf.cc gguf_config.cc gguf_dequant.cc json_config.cc
          model_file.cc pretokenizer.cc tensor_names.cc tokenizer.cc tokenizer_files.cc unicode.cc
  PUBLIC memslot_files
  PRIVATE nlohmann_json::nlohmann_json PkgConfig::PCRE2)
