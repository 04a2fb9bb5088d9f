#include "rl/report/page.h"

#include "rl/report/plots.h"

namespace memslot {
namespace {

// Six colours that can be told apart, also by most readers who cannot tell red from green.
constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--page:#fff;--text:#1c2024;--soft:#5b6570;--grid:#e3e7eb;
--axis:#9aa4ae;--panel:#f7f8fa;--c0:#1f6fc4;--c1:#c2570c;--c2:#23835a;--c3:#8447b5;--c4:#8a6d00;
--c5:#b3261e;--bar:#b4bec9;--good:#23835a;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--page:#14171a;--text:#e6e9ec;--soft:#9aa4ae;
--grid:#2a3036;--axis:#6b7580;--panel:#1b1f23;--c0:#6cb0f5;--c1:#f29a55;--c2:#5fc694;
--c3:#c493ee;--c4:#d8b94a;--c5:#f2827a;--bar:#4a545e;--good:#5fc694;--bad:#f2827a}}
body{background:var(--page);color:var(--text);font:15px/1.5 system-ui,sans-serif;
max-width:68rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}p{max-width:46rem}
.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem}
figure{margin:0;background:var(--panel);border-radius:8px;padding:.7rem}
figcaption{font-weight:600;font-size:.9rem;margin-bottom:.3rem}
svg{width:100%;height:auto;display:block}.grid{stroke:var(--grid)}.axis{stroke:var(--axis)}
.reference{stroke:var(--soft);stroke-dasharray:5 4}.tick{fill:var(--soft);font-size:11px}
.name,.value{fill:var(--text);font-size:12px}.end{text-anchor:end}.middle{text-anchor:middle}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}
.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
.bar{fill:var(--bar)}.marked{fill:var(--c0)}.whisker{stroke:var(--text);stroke-width:1.4}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.8rem;color:var(--soft);
margin-top:.3rem}
.legend i{display:inline-block;width:16px;height:0;border-top:3px solid;vertical-align:middle;
margin-right:6px}
.legend .dash{border-top:2px dashed var(--soft)}.k0{border-color:var(--c0)}
.k1{border-color:var(--c1)}.k2{border-color:var(--c2)}.k3{border-color:var(--c3)}
.k4{border-color:var(--c4)}.k5{border-color:var(--c5)}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--grid);
white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{font-weight:600;color:var(--soft)}
)css";

std::string row(const std::vector<std::string>& cells, const char* tag) {
  std::string out = "<tr>";
  for (const std::string& cell : cells) {
    out += std::string("<") + tag + ">" + escaped(cell) + "</" + tag + ">";
  }
  return out + "</tr>";
}

}  // namespace

std::string html_page(const std::string& title, const std::string& body) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" +
         escaped(title) +
         "</title><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>" +
         kStyle + "</style></head><body><h1>" + escaped(title) + "</h1>\n" + body +
         "</body></html>\n";
}

std::string html(const Table& table) {
  std::string out =
      "<div class=\"scroll\"><table><thead>" + row(table.head, "th") + "</thead><tbody>";
  for (const auto& cells : table.rows) out += row(cells, "td");
  return out + "</tbody></table></div>";
}

std::string html_plots(const std::vector<std::string>& plots) {
  std::string out = "<div class=\"plots\">";
  for (const std::string& plot : plots) out += plot;
  return out + "</div>";
}

}  // namespace memslot
