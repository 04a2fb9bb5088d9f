"""What the browser tests share: one headless Chromium, the fake controller, and waiting.

MEMSLOT_INSPECTOR_URL (and MEMSLOT_INSPECTOR_TOKEN) name a real controller to drive in place of the fake.
"""
import contextlib
import json
import os
import shutil
import sys
import time
import unittest
import urllib.request

import fake_controller

SKIPPED = 77
URL = os.environ.get("MEMSLOT_INSPECTOR_URL", "")
TOKEN = os.environ.get("MEMSLOT_INSPECTOR_TOKEN", "")
WAIT_S = 10

try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    webdriver = None


def missing():
    """What the tests cannot run without, in words; '' where all is there."""
    if webdriver is None:
        return "python3-selenium"
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        return "chromium and chromium-driver"
    if not URL and not fake_controller.CHART.is_file():
        return "libjs-chart.js"
    return ""


def open_browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    switches = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--force-device-scale-factor=1",
                "--window-size=1280,900", "--disable-background-networking", "--no-first-run"]
    if os.geteuid() == 0:
        switches.append("--no-sandbox")  # Chromium's own sandbox refuses to run as root
    for switch in switches:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.chrome.service.Service(shutil.which("chromedriver")))


def fake_only(test):
    """For what needs the fake's contents, its clock or its faults."""
    return unittest.skipIf(URL, "only with the fake controller")(test)


class BrowserCase(unittest.TestCase):
    """Every test begins with a fresh page and the right token, and ends without a message in the console."""

    @classmethod
    def setUpClass(cls):
        if BrowserCase.__dict__.get("browser") is None:
            BrowserCase.browser = open_browser()
            BrowserCase.fake = None if URL else fake_controller.FakeController().start()
            BrowserCase.url = URL if URL else BrowserCase.fake.url
            BrowserCase.token = TOKEN if URL else BrowserCase.fake.token

    def setUp(self):
        self.expected = []  # parts of console messages that a test provokes
        self.size(1280, 900)
        self.scheme("light")
        self.browser.get(self.url + "healthz")  # same origin, no script: its storage can be cleared
        self.script("sessionStorage.clear(); localStorage.clear()")
        self.browser.get_log("browser")

    def tearDown(self):
        said = [e["message"] for e in self.browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
        self.assertEqual([m for m in said if not any(e in m for e in self.expected)], [])

    # --- going places ------------------------------------------------------------------------------

    def open(self, route="#/bank", token=True):
        if not self.browser.current_url.endswith("/healthz"):
            self.browser.get(self.url + "healthz")  # else only the fragment would change
        if token:
            self.browser.get(self.url + "#token=" + self.token)
            self.wait(lambda: self.script("return location.hash") == "#/bank")
            if route != "#/bank":
                self.go(route)
        else:
            self.browser.get(self.url + route)
        self.ready()

    def go(self, route):
        self.script("location.hash = arguments[0]", route)
        self.ready()

    def ready(self):
        """The route's page is there and has what it asked for."""
        self.wait(lambda: self.script("""
            const name = location.hash.replace('#/', '').split(/[/?]/)[0] || 'bank';
            return document.querySelector(`.page-${name} h1, .page-${name} .error-box`)
                && !document.querySelector('.loading') && !document.querySelector('[aria-busy]')"""))

    def size(self, width, height):
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                     {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})

    def scheme(self, name):
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                     {"features": [{"name": "prefers-color-scheme", "value": name}]})

    # --- looking and pressing ----------------------------------------------------------------------

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def module(self, text, *arguments):
        """`text` is the body of an async function that may import the page's modules; its result."""
        reply = self.browser.execute_async_script(
            "const done = arguments[arguments.length - 1]; const given = [...arguments].slice(0, -1);"
            "(async () => {" + text + "})().then((value) => done({value}), (error) => done({error: String(error)}))",
            *arguments)
        self.assertNotIn("error", reply)
        return reply.get("value")

    def wait(self, condition, what="", seconds=WAIT_S):
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(WebDriverException):  # a node that was replaced meanwhile
                value = condition()
                if value:
                    return value
            if time.monotonic() > end:
                self.fail(f"waited {seconds} s for {what or 'the page'}; it says: {self.text('main')[:600]}")
            time.sleep(0.02)

    def all(self, css):
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        return self.wait(lambda: self.all(css), css)[0]

    def text(self, css):
        return self.script("return document.querySelector(arguments[0])?.textContent ?? ''", css)

    def texts(self, css):
        return self.script("return [...document.querySelectorAll(arguments[0])].map((n) => n.textContent)", css)

    def button(self, name, inside="body"):
        def found():
            for node in self.all(f"{inside} button, {inside} a"):
                if (node.get_attribute("aria-label") or node.text) == name and node.is_displayed():
                    return node
            return None
        return self.wait(found, f"a button {name}")

    def type(self, css, text):
        field = self.one(css)
        field.clear()
        field.send_keys(text)

    def press(self, *keys):
        ActionChains(self.browser).send_keys(*keys).perform()

    def press_with(self, held, key):
        ActionChains(self.browser).key_down(held).send_keys(key).key_up(held).perform()

    def point_at(self, node):
        ActionChains(self.browser).move_to_element(node).perform()

    def focused(self):
        return self.script("return document.activeElement.textContent || document.activeElement.ariaLabel || "
                           "document.activeElement.placeholder")

    def until_text(self, css, part, seconds=WAIT_S):
        self.wait(lambda: part in self.text(css), f"{part!r} in {css}", seconds)

    # --- the interface, without the page -------------------------------------------------------------

    def api(self, path):
        request = urllib.request.Request(self.url + "api/v1/" + path, headers={"Authorization": "Bearer " + self.token})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def a_memory(self):
        rows = self.api("memories?limit=2&sort=uses&order=desc")["memories"]
        if not rows:
            self.skipTest("the bank is empty")
        return rows[0]

    def generate(self, prompt="The harbour master", **settings):
        self.open("#/generate")
        self.type(".page textarea", prompt)
        if settings:
            self.script("document.querySelector('.page details').open = true")
        for label, value in settings.items():
            field = self.script("return [...document.querySelectorAll('.field')].find((f) => "
                                "f.querySelector('label').textContent === arguments[0]).querySelector('input')", label)
            field.clear()
            field.send_keys(str(value))
        self.button("Generate", "form").click()


def main():
    lacking = missing()
    if lacking:
        print(f"SKIPPED: no browser tests without {lacking} (cmake/packages.txt)", file=sys.stderr)
        sys.exit(SKIPPED)
    try:
        program = unittest.main(module="__main__", exit=False, verbosity=1)
    finally:
        if BrowserCase.__dict__.get("browser") is not None:
            BrowserCase.browser.quit()
    sys.exit(0 if program.result.wasSuccessful() else 1)


__all__ = ["BrowserCase", "Keys", "fake_controller", "fake_only", "main"]
