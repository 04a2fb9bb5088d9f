#!/usr/bin/python3
"""Question: is the inspector quick over 100,000 memories of a real bank, and what does it cost the controller?
Budget:   first page and search in 300 ms each, the interface's answer and the browser's rows alike; less than 100 MB
of the controller's resident memory.

    inspector_scale.py --build DIR [--memories N] [--bank DIR] [--rounds N]

Makes the bank with fill_bank (some minutes; DIR of --bank is kept, and used again where it is there), starts
memslot-controller over it without and with --http, and prints one JSON object. `http_ms`: [median, longest] over the
rounds of one whole answer, read; `browser_ms`: in Chromium, headless, 1280 x 900, from the start of navigation, the last
keystroke, a press of a button, to the frame that shows the rows. `catalog` is catalog_bench's: the controller keeps that
part with and without --http. Without the browser's packages its figures are null.
"""
import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "web"))
import browser  # noqa: E402

REQUESTS = {
    "first page": "memories",
    "first page of 500": "memories?limit=500",
    "newest first": "memories?sort=created&order=desc",
    "most used first": "memories?sort=uses&order=desc",
    "by source": "memories?sort=source",
    "page in the middle, by gain": "memories?sort=gain&offset=50000",
    "last page": "memories?offset=99950",
    "search: one found": "memories?q=-000123-",
    "search: some hundred found": "memories?q=glass-heron",
    "search: most found, by recall": "memories?q=lora&sort=recall",
    "search: none found": "memories?q=nothing-like-it",
    "one kind, by size": "memories?kind=mlp&sort=bytes",
    "a memory": "memories/{memory}",
    "its history": "memories/{memory}/history",
    "its segments": "memories/{memory}/segments",
    "its map among 500": "memories/{memory}/map?others=500",
    "traces of a source": "traces?source=glass-heron",
    "status": "status",
}

# Notes when a frame showed rows, and when the last key went down.
WATCH = """
window.shown = null;
window.typed = null;
addEventListener('input', (event) => { window.typed = event.timeStamp; window.shown = null; }, true);
addEventListener('click', (event) => { window.typed = event.timeStamp; window.shown = null; }, true);
new MutationObserver(() => requestAnimationFrame(() => {
  const after = new MessageChannel();  // its message comes when the frame is drawn
  after.port1.onmessage = () => { if (document.querySelector('tbody tr')) window.shown = performance.now(); };
  after.port2.postMessage(0);
})).observe(document, {subtree: true, childList: true});
"""


class Controller:
    def __init__(self, programs, bank, folder, *more):
        began = time.monotonic()
        self.process = subprocess.Popen(
            [programs / "memslot-controller", "--bank", bank, "--endpoint", f"ipc://{folder}/link", *more],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ready = self.process.stdout.readline()
        if " ready " not in ready:
            raise SystemExit("the controller ended")
        self.seconds = time.monotonic() - began
        self.url = ready.split("http=")[1].split()[0] if "http=" in ready else None

    def resident_mb(self):
        """In millions of bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return round(kib * 1024 / 1e6, 1)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def spread(milliseconds):
    return [round(statistics.median(milliseconds), 1), round(max(milliseconds), 1)]


def over_http(url, rounds):
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=60)

    def get(path):
        connection.request("GET", "/api/v1/" + path)
        reply = connection.getresponse()
        data = reply.read()
        if reply.status != 200:
            raise SystemExit(f"{path}: {reply.status} {data[:200]}")
        return data

    row = json.loads(get("memories?sort=uses&order=desc&limit=1"))["memories"][0]
    memory = f"{row['namespace']}/{row['id']}"
    times = {name: [] for name in REQUESTS}
    for _ in range(rounds):
        for name, path in REQUESTS.items():
            began = time.perf_counter()
            get(path.format(memory=memory))
            times[name].append((time.perf_counter() - began) * 1000)
    connection.close()
    return {name: spread(found) for name, found in times.items()}


class Page:
    """The inspector in Chromium, by what a person sees."""

    def __init__(self, url, token):
        self.url = url
        self.driver = browser.open_browser()
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        self.driver.get(f"{url}#token={token}")
        self.until("window.shown")

    def until(self, expression):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            value = self.driver.execute_script("return " + expression)
            if value:
                return value
            time.sleep(0.01)
        raise SystemExit(f"the page waited in vain for {expression}")

    def open(self):
        self.driver.get("about:blank")
        self.driver.get(self.url + "#/bank")
        return self.until("window.shown")

    def since_input(self, condition):
        """From the last key or press to the frame in which `condition` holds."""
        self.until(f"window.shown && ({condition})")
        return self.driver.execute_script("return window.shown - window.typed")

    def search(self, text):
        self.driver.execute_script("document.querySelector('input[type=search]').select()")
        self.driver.find_element(browser.By.CSS_SELECTOR, "input[type=search]").send_keys(text)
        names = "[...document.querySelectorAll('tbody td:first-child')].every((n) => n.textContent.includes('%s'))"
        return self.since_input(names % text)

    def press(self, css, condition):
        self.driver.find_element(browser.By.CSS_SELECTOR, css).click()
        return self.since_input(condition)

    def memory(self):
        self.driver.execute_script("window.shown = null; window.typed = performance.now();"
                                   "location.hash = document.querySelector('tbody a').getAttribute('href')")
        self.until("document.querySelector('.page-memory h1') && !document.querySelector('[aria-busy]')"
                   " && !document.querySelector('.loading')")
        return self.driver.execute_script("return performance.now() - window.typed")


def in_browser(url, token, rounds):
    if browser.missing():
        return None
    page = Page(url, token)
    times = {}
    try:
        for _ in range(rounds):
            times.setdefault("first rows, from navigation", []).append(page.open())
            for text in ("glass-heron", "000123", "lora"):
                times.setdefault(f"search {text}, from the last key", []).append(page.search(text))
            page.open()
            sort = page.press("[data-sort=uses]", "document.querySelector('th[aria-sort=ascending] [data-sort=uses]')")
            times.setdefault("sorted by uses, from the press", []).append(sort)
            page.open()
            turned = page.press("[aria-label='Last page']", "document.querySelector('.pager').textContent"
                                                            ".includes('–100,000')")
            times.setdefault("last page, from the press", []).append(turned)
            times.setdefault("a memory's page", []).append(page.memory())
    finally:
        page.driver.quit()
    return {name: spread(found) for name, found in times.items()}


def measure(options, bank, folder):
    programs = options.build / "bin"
    out = {"catalog": json.loads(subprocess.run([programs / "catalog_bench", str(options.memories)], check=True,
                                                capture_output=True, text=True).stdout)}
    plain = Controller(programs, bank, folder)
    time.sleep(2)
    out["start_s"] = round(plain.seconds, 1)
    out["resident_mb"] = {"without http": plain.resident_mb()}
    plain.stop()
    served = Controller(programs, bank, folder, "--http", "127.0.0.1:0")
    try:
        time.sleep(2)
        out["resident_mb"]["with http, at the start"] = served.resident_mb()
        out["http_ms"] = over_http(served.url, options.rounds)
        out["resident_mb"]["after the requests"] = served.resident_mb()
        token = Path(f"{bank}.token").read_text().strip()
        out["browser_ms"] = in_browser(served.url, token, options.rounds)
        out["resident_mb"]["after the browser"] = served.resident_mb()
    finally:
        served.stop()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bank = options.bank or Path(folder) / "bank"
        if not bank.exists():
            subprocess.run([options.build / "bin" / "fill_bank", bank, str(options.memories)], check=True)
        print(json.dumps(measure(options, bank, folder), indent=1))


if __name__ == "__main__":
    main()
