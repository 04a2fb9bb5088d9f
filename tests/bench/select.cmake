# The selection round trip: observation to directive.
add_executable(select_bench select_bench.cc)
target_link_libraries(select_bench PRIVATE memslot_controller_link memslot_rpc
  memslot_test_support memslot_warnings)
# The candidate index at 1,000 to 1,000,000 memories.
add_executable(index_bench index_bench.cc)
target_link_libraries(index_bench PRIVATE memslot_step memslot_files Eigen3::Eigen memslot_warnings)
# One decision of the learned policy.
add_executable(decision_bench decision_bench.cc)
target_link_libraries(decision_bench PRIVATE memslot_rl_torch memslot_warnings)
# Real keys for it.
add_executable(passage_keys passage_keys.cc)
target_link_libraries(passage_keys PRIVATE memslot_runtime memslot_gpt memslot_backend memslot_files
  memslot_warnings)
# The list of all memories.
add_executable(catalog_bench catalog_bench.cc)
target_link_libraries(catalog_bench PRIVATE memslot_step nlohmann_json::nlohmann_json
  memslot_warnings)
