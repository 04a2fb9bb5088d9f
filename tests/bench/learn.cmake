# Learning: quality of a recipe, and speed of a step.
add_executable(recipe_report recipe_report.cc)
target_link_libraries(recipe_report PRIVATE memslot_learn memslot_backend
  nlohmann_json::nlohmann_json memslot_warnings)
add_executable(learn_bench learn_bench.cc)
target_link_libraries(learn_bench PRIVATE memslot_learn memslot_backend memslot_warnings)
