# Counterfactual scoring: many memories on one text.
add_executable(gains_bench gains_bench.cc)
target_link_libraries(gains_bench PRIVATE memslot_gains memslot_layouts memslot_backend
  OpenMP::OpenMP_CXX memslot_warnings)
