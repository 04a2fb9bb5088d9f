#pragma once
// One HTML page that needs nothing but itself: no script, no outside resource; light or dark as the
// reader's system has it.
//
// Threads: pure functions.
#include <string>
#include <vector>

namespace memslot {

// `body` is HTML.
std::string html_page(const std::string& title, const std::string& body);

// Cells are text; the first column is left-aligned, the rest are figures.
struct Table {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
};
std::string html(const Table& table);

// Plots beside each other where there is room.
std::string html_plots(const std::vector<std::string>& plots);

}  // namespace memslot
