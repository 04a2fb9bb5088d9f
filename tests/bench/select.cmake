# The selection round trip: observation to directive.
add_executable(select_bench select_bench.cc)
target_link_libraries(select_bench PRIVATE memslot_controller_link memslot_rpc
  memslot_test_support memslot_warnings)
