"""docs/metrics.md names what the processes expose, and the dashboard asks for nothing else.

    metrics.py ROOT CONTROLLER_PAGE GENERATOR MODEL [--write]
    metrics.py --self-test
"""
import http.client
import json
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import exposition  # noqa: E402

PAGE, DASHBOARD = "docs/metrics.md", "compose/grafana/memslot.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCRAPED = {"instance", "job"}  # labels that Prometheus adds


def generator_page(program, model):
    """Of the real process, which needs no controller to be looked at."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--model", model, "--endpoint", f"ipc://{folder}/nobody", "--http", "127.0.0.1:0",
                   "--weights", "f32", "--threads", "1", "--log-level", "error", "--flush-ms", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            port = int(process.stdout.readline().split("http=127.0.0.1:")[1])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            process.terminate()
            process.wait(60)


def controller_page(program):
    return subprocess.run([program], check=True, capture_output=True, text=True, timeout=60).stdout


def label_values(family):
    out = {name: [] for name in family.labels()}
    for _, labels in family.samples:
        for name, value in labels:
            if name != "le" and value not in out[name]:
                out[name].append(value)
    return out


def labels_cell(family):
    values = label_values(family)
    if "build" in values:
        return "`build`"  # another at every commit
    return "; ".join(f"`{name}`: {', '.join(known)}" for name, known in values.items())


def table(families):
    rows = ["| name | type | labels | help |", "|---|---|---|---|"]
    rows += [f"| `{f.name}` | {f.type} | {labels_cell(f)} | {f.help} |" for f in families]
    return "\n".join(rows)


def documented(page, tables):
    """The page with its blocks as they should be."""
    for name, text in tables.items():
        block = re.compile(rf"(<!-- {name} metrics -->\n).*?(\n<!-- end -->)", re.S)
        if not block.search(page):
            sys.exit(f"{PAGE}: expected a block '{name} metrics', found none")
        page = block.sub(lambda m, t=text: m.group(1) + t + m.group(2), page)
    return page


def panels_of(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def base_name(name, families):
    """The family that a query's name is of, or None."""
    if name in families:
        return None if families[name].type == "histogram" else name
    family = re.sub(r"_(bucket|sum|count)$", "", name)
    return family if family in families and families[family].type == "histogram" else None


def query_breaches(query, families):
    breaches = []
    selectors = re.findall(r"\b((?:memslot|process)_\w+)(?:\{([^}]*)\})?", query)
    if not selectors:
        breaches.append("no metric")
    labels_of_all = set(SCRAPED) | {"le"}
    for name, inside in selectors:
        family = base_name(name, families)
        if family is None:
            breaches.append(f"no metric {name}")
            continue
        known = label_values(families[family])
        labels_of_all |= set(known)
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', inside):
            if label not in known and label not in SCRAPED:
                breaches.append(f"{name} has no label {label}")
            elif label in known and operator in ("=", "!=") and value not in known[label]:
                breaches.append(f"{name}: {label} is never {value}")
        if families[family].type == "counter" and not re.search(rf"\b(rate|increase)\({name}\b", query):
            breaches.append(f"{name}: a counter without rate() or increase()")
    for grouped in re.findall(r"\bby\s*\(([^)]*)\)", query):
        for label in re.findall(r"\w+", grouped):
            if label not in labels_of_all:
                breaches.append(f"by ({label}): no label of the query's metrics")
    if "histogram_quantile" in query and not re.search(r"by\s*\([^)]*\ble\b", query):
        breaches.append("histogram_quantile without le")
    return breaches


def dashboard_breaches(dashboard, families):
    breaches, ids, taken = [], set(), set()
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            breaches += [f"variable {variable['name']}: {b}" for b in query_breaches(variable["definition"], families)]
    if not any(v["type"] == "datasource" and v["name"] == "datasource" for v in dashboard["templating"]["list"]):
        breaches.append("expected a variable 'datasource', found none")
    for panel in panels_of(dashboard):
        title = panel["title"]
        if panel["id"] in ids:
            breaches.append(f"{title}: id {panel['id']} twice")
        ids.add(panel["id"])
        grid = panel["gridPos"]
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"])
                 for y in range(grid["y"], grid["y"] + grid["h"])}
        if cells & taken or grid["x"] + grid["w"] > 24:
            breaches.append(f"{title}: lies on another, or beside the grid")
        taken |= cells
        if panel["type"] == "row":
            continue
        for target in panel["targets"]:
            breaches += [f"{title}: {target['expr']}: {b}" for b in query_breaches(target["expr"], families)]
            if target["datasource"] != DATASOURCE or panel["datasource"] != DATASOURCE:
                breaches.append(f"{title}: expected the data source {DATASOURCE}")
    return breaches


def check(root, pages, write):
    families = {name: f for page in pages.values() for name, f in page.items()}
    tables = {kind: table([f for f in page.values() if not f.name.startswith("process_")])
              for kind, page in pages.items()}
    both = {kind: table([f for f in page.values() if f.name.startswith("process_")]) for kind, page in pages.items()}
    if len(set(both.values())) != 1:
        sys.exit("process_*: expected the same of both processes")
    tables["process"] = both["generator"]
    for kind, page in pages.items():
        for name in page:
            if not name.startswith((f"memslot_{kind}_", "process_")):
                sys.exit(f"{name}: expected memslot_{kind}_... or process_...")
    path = pathlib.Path(root, PAGE)
    page = path.read_text(encoding="utf-8")
    wanted = documented(page, tables)
    if write:
        path.write_text(wanted, encoding="utf-8")
    elif wanted != page:
        sys.exit(f"{path}: the tables differ from what the processes expose; run metrics.py with --write")
    breaches = dashboard_breaches(json.loads(pathlib.Path(root, DASHBOARD).read_text(encoding="utf-8")), families)
    if breaches:
        sys.exit("\n".join(f"{DASHBOARD}: {b}" for b in breaches))


def self_test():
    """Each of these is a breach, and is found; what is none is not."""
    families = exposition.parse('# HELP memslot_a_total A.\n# TYPE memslot_a_total counter\n'
                                'memslot_a_total{kind="x"} 1\n'
                                '# HELP memslot_h H.\n# TYPE memslot_h histogram\nmemslot_h_count 0\nmemslot_h_sum 0\n'
                                'memslot_h_bucket{le="1"} 0\nmemslot_h_bucket{le="+Inf"} 0\n')
    good = ('sum by (kind) (rate(memslot_a_total{instance=~"$generator"}[1m]))',
            'histogram_quantile(0.5, sum by (le) (rate(memslot_h_bucket[1m])))')
    bad = {"memslot_b": "no metric memslot_b", "memslot_h": "no metric memslot_h", "1": "no metric",
           'rate(memslot_a_total{kind="y"}[1m])': "never y", 'rate(memslot_a_total{sort="x"}[1m])': "no label sort",
           "memslot_a_total": "without rate", "sum by (sort) (rate(memslot_a_total[1m]))": "by (sort)",
           "histogram_quantile(0.5, rate(memslot_h_bucket[1m]))": "without le",
           "rate(memslot_a_total_count[1m])": "no metric memslot_a_total_count"}
    for query in good:
        assert not query_breaches(query, families), (query, query_breaches(query, families))
    for query, word in bad.items():
        assert any(word in breach for breach in query_breaches(query, families)), (query, word)
    panel = {"type": "timeseries", "title": "t", "id": 1, "gridPos": {"x": 0, "y": 0, "w": 8, "h": 8}, "datasource": DATASOURCE,
             "targets": [{"datasource": DATASOURCE, "expr": good[0]}]}
    variables = [{"type": "datasource", "name": "datasource"}]
    def found(*panels, variables=variables):
        return dashboard_breaches({"templating": {"list": variables}, "panels": panels}, families)
    assert not found(panel)
    assert len(found(panel, panel)) == 2  # the id, the place
    assert len(found({**panel, "datasource": {"uid": "mine"}})) == 1
    assert len(found({**panel, "targets": [{"datasource": DATASOURCE, "expr": "memslot_b"}]})) == 1
    assert len(found(panel, variables=[])) == 1
    query = {"type": "query", "name": "generator", "definition": "label_values(memslot_b, instance)"}
    assert len(found(panel, variables=variables + [query])) == 1
    for text in ("", "memslot_a 1\n", "# HELP a A.\n# TYPE a gauge\na 1", "# HELP a A.\n# TYPE a gauge\n",
                 "# HELP a A.\n# TYPE a gauge\nb 1\n", "# HELP a A.\n# TYPE a counter\na 1\n",
                 "# HELP a A.\n# TYPE a gauge\na{x=1} 1\n", "# HELP a A.\n# TYPE a gauge\na 1\na 1\n",
                 "# HELP a A.\n# TYPE a gauge\na one\n",
                 '# HELP h H.\n# TYPE h histogram\nh_count 1\nh_sum 1\nh_bucket{le="+Inf"} 2\n'):
        try:
            exposition.parse(text)
        except (ValueError, IndexError):
            continue
        raise AssertionError(f"taken for a page: {text}")


def main():
    if "--self-test" in sys.argv:
        return self_test()
    root, controller, generator, model = sys.argv[1:5]
    pages = {"generator": exposition.parse(generator_page(generator, model)),
             "controller": exposition.parse(controller_page(controller))}
    return check(root, pages, "--write" in sys.argv)


if __name__ == "__main__":
    main()
