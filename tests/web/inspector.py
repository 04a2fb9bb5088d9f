"""The inspector in a real browser: pages, hostile texts, keyboard, phone, themes, token, faults.

Exit code 77: skipped, loudly, where Chromium, its driver or selenium is missing.
"""
import os
import tempfile
import time

from browser import BrowserCase, Keys, fake_controller, fake_only, main

PAGES = ["#/bank", "#/generate", "#/traces", "#/policy", "#/jobs"]


class Pages(BrowserCase):
    def routes(self):
        row = self.a_memory()
        routes = [*PAGES, f"#/memory/{row['namespace']}/{row['id']}"]
        traces = self.api("traces?limit=1")["traces"]
        return routes + ([f"#/trace/{traces[0]['trace']}"] if traces else [])

    def test_every_page_renders_in_both_themes_and_at_phone_width(self):
        self.open()
        self.script("addEventListener('securitypolicyviolation', "
                    "(e) => { (window.broken ??= []).push(e.blockedURI); })")
        for width, scheme in ((1280, "light"), (360, "dark")):
            self.size(width, 800)
            self.scheme(scheme)
            for route in self.routes():
                with self.subTest(route=route, width=width, scheme=scheme):
                    self.go(route)
                    self.assertNotEqual(self.text("h1"), "")
                    self.assertEqual(self.all(".error-box"), [])
                    self.assertFalse(self.script("""
                        const {scrollWidth, clientWidth} = document.querySelector('main');
                        return document.documentElement.scrollWidth > innerWidth || scrollWidth > clientWidth
                    """), "the page scrolls sideways")
                    self.assertEqual(self.script("return [...document.querySelectorAll('[style]')].filter((n) => "
                                                 "n.tagName !== 'CANVAS').length"), 0)
        self.assertIsNone(self.script("return window.broken"))

    def test_what_can_be_pressed_has_a_name(self):
        self.open()
        for route in self.routes():
            self.go(route)
            nameless = self.script("""
                return [...document.querySelectorAll('button, a, input, select, textarea, canvas')].filter((n) =>
                  !(n.textContent.trim() && n.tagName !== 'SELECT') && !n.ariaLabel &&
                  !(n.labels && n.labels.length)).map((n) => n.outerHTML)""")
            self.assertEqual(nameless, [], route)

    def test_the_theme_follows_the_system_and_the_switch(self):
        self.open()
        background = lambda: self.script("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
        light = background()
        self.scheme("dark")
        dark = self.wait(lambda: background() != light and background())
        switch = self.one("#theme-button")
        switch.click()
        self.assertEqual((switch.text, background()), ("Theme: light", light))
        switch.click()
        self.assertEqual((switch.text, background()), ("Theme: dark", dark))
        self.scheme("light")
        self.assertEqual(background(), dark)
        self.open("#/jobs")
        self.assertEqual((self.text("#theme-button"), background()), ("Theme: dark", dark))

    def test_colours_stand_out_in_both_themes(self):
        self.open()
        for scheme in ("light", "dark"):
            self.scheme(scheme)
            worst = self.module("""
                const {computedColour} = await import('/lib/colours.js');
                const light = (colour) => {
                  const [r, g, b] = colour.match(/[0-9.]+/g).map((c) => {
                    const s = c / 255;
                    return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
                  });
                  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const contrast = (a, b) => {
                  const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
                  return (x + 0.05) / (y + 0.05);
                };
                document.dispatchEvent(new Event('themechange'));
                const grounds = ['--page', '--panel', '--raised'].map((name) => computedColour(name));
                const out = {};
                const note = (name, colour) => {
                  out[name] = Math.min(...grounds.map((ground) => contrast(colour, ground)));
                };
                for (let i = 0; i < 12; ++i) note('m' + i, computedColour('--memory', 'm' + i));
                note('base', computedColour('--memory'));
                for (const name of ['--text', '--dim', '--accent', '--good', '--bad', '--warn']) {
                  note(name, computedColour(name));
                }
                return out;""")
            for name, contrast in worst.items():
                self.assertGreaterEqual(contrast, 4.5 if name.startswith("--") else 3.0, f"{name}, {scheme}")

    def test_byte_offsets_become_offsets_of_the_text(self):
        self.open()
        for text, offsets in (("plain", [5, 0, 3, 99]), ("aé€𝔸z", [0, 1, 3, 6, 10, 11, 2, 4, 8]), ("", [0, 4]),
                              ("𝔸𝔸", [8, 4])):
            data = text.encode()
            expected = []
            for offset in offsets:
                before = data[:offset].decode(errors="ignore")
                expected.append(len(before.encode("utf-16-le")) // 2)
            got = self.module("return (await import('/lib/format.js')).utf16Offsets(...given)", text, offsets)
            self.assertEqual(got, expected, text)


class Bank(BrowserCase):
    def names(self):
        return self.texts("tbody td:first-child bdi")

    @fake_only
    def test_a_hundred_thousand_memories_are_paged_not_loaded(self):
        self.open()
        self.assertIn("of 100,001", self.text(".pager"))
        self.assertEqual(len(self.all("tbody tr")), 50)
        first = self.names()
        self.button("Next page").click()
        self.until_text(".pager .range", "51–100")
        self.assertTrue(set(first).isdisjoint(self.names()))
        self.button("Last page").click()
        self.until_text(".pager .range", "100,001–100,001")
        self.type(".page-number", "1001")
        self.press(Keys.ENTER)
        self.until_text(".pager .range", "50,001–50,050")
        self.assertEqual(len(self.all("tbody tr")), 50)
        self.script("history.back()")
        self.until_text(".pager .range", "100,001–100,001")

    @fake_only
    def test_search_and_sort_are_the_controllers(self):
        self.open()
        self.type("input[type=search]", "GLASS-ferry-0000")
        self.wait(lambda: self.names() and all("glass-ferry-0000" in n for n in self.names()))
        self.assertIn("q=GLASS", self.script("return location.hash"))
        for title, css in (("Uses", "td:nth-child(8)"), ("Keys", "td:nth-child(7)")):
            heads = "[...document.querySelectorAll('th')].find((t) => t.textContent.startsWith(arguments[0]))"
            for direction, reverse in (("ascending", False), ("descending", True)):
                self.script(f"return {heads}.querySelector('button')", title).click()
                self.wait(lambda d=direction: self.script(f"return {heads}.ariaSort", title) == d)
                numbers = [int(t.replace(",", "")) for t in self.texts(css)]
                self.assertEqual(numbers, sorted(numbers, reverse=reverse))
        self.assertTrue(self.focused().startswith("Keys"))  # the focus stays where it was

    @fake_only
    def test_an_older_slower_answer_does_not_replace_a_newer_one(self):
        self.open()
        self.fake.slow["ink"] = 0.8
        self.addCleanup(self.fake.slow.clear)
        self.type("input[type=search]", "ink")
        self.wait(lambda: any("q=ink" in path for _, path in self.fake.asked[-3:]))
        self.one("input[type=search]").send_keys("-tide-almanac-lora")
        self.wait(lambda: self.names() == ["ink-tide-almanac-lora"])
        time.sleep(0.9)
        self.assertEqual(self.names(), ["ink-tide-almanac-lora"])

    @fake_only
    def test_nothing_found_and_an_empty_bank_say_what_to_do(self):
        self.open("#/bank?q=nothing-like-it")
        self.until_text(".empty", "Nothing matches")
        self.button("Show all memories").click()
        self.wait(self.names)
        empty = fake_controller.FakeController(memories=0, traces=0).start()
        self.addCleanup(empty.stop)
        self.browser.get(empty.url)
        for route, words in (("#/bank", "Learn a text"), ("#/traces", "Generate a text"), ("#/jobs", "Learn a text"),
                             ("#/policy", "Load a file"), ("#/generate", "See the memories")):
            self.go(route)
            self.wait(lambda w=words: w in self.text(".empty"), f"{words} on {route}")

    @fake_only
    def test_a_memory_shows_its_segments_versions_and_uses(self):
        self.open("#/memory/default/ink-tide-almanac-lora")
        layout = self.api("memories/default/ink-tide-almanac-lora/segments")["segments"]
        text = self.api("memories/default/ink-tide-almanac-lora")["source_text"].encode()
        self.assertEqual(self.text(".source"), text.decode())
        for number in (1, 3, len(layout)):
            self.type(".segment-number", str(number))
            self.press(Keys.TAB)
            marked = "".join(self.texts(".marked"))
            self.assertEqual(marked, text[layout[number - 1]["begin"]:layout[number - 1]["end"]].decode())
        self.assertIn("Version 3 against 4", self.script(
            "return [...document.querySelectorAll('table')].map((t) => t.ariaLabel).join()"))
        self.assertIn("better", self.text("table[aria-label^='Version 3']"))
        self.wait(lambda: self.all("[aria-label='Use over time'] canvas[aria-label]"))
        self.assertEqual(len(self.all("[aria-label='Keys'] canvas")), 1)

    @fake_only
    def test_rollback_export_and_deletion_by_name(self):
        self.open("#/memory/default/hollow-quarry-000018")
        self.until_text("[aria-label=Versions]", "@3")
        self.button("Roll back to version 1").click()
        self.button("Roll back", "dialog").click()
        self.until_text("h1", "@4")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": folder.name})
        self.button("Export").click()
        saved = os.path.join(folder.name, "hollow-quarry-000018@4.msm")
        self.wait(lambda: os.path.exists(saved), saved)
        self.button("Delete").click()
        go = self.button("Delete", "dialog")
        self.assertFalse(go.is_enabled())
        self.type("#confirm-name", "hollow-quarry")
        self.assertFalse(go.is_enabled())
        self.type("#confirm-name", "hollow-quarry-000018")
        go.click()
        self.wait(lambda: self.script("return location.hash") == "#/bank")
        self.ready()
        self.assertNotIn(("default", "hollow-quarry-000018"), self.fake.bank.index)
        self.button("Import").click()
        self.one("dialog input[type=file]").send_keys(saved)
        self.all("dialog input[type=text]")[1].send_keys("back-again")
        self.button("Import", "dialog").click()
        self.until_text("h1", "back-again@1")

    @fake_only
    def test_hostile_names_and_sources_stay_text(self):
        name = fake_controller.HOSTILE_ID
        self.open()
        self.assertIn(name, self.names())
        self.all("tbody a")[self.names().index(name)].click()
        self.ready()
        self.assertIn(name, self.text("h1"))
        self.assertIn(fake_controller.HOSTILE_SOURCE, self.text(".toolbar"))
        self.until_text(".source", "<b>bold</b> \u202eright to left")
        self.go("#/traces")
        self.assertIn("<b>bold</b>", self.text("tbody"))
        self.assertEqual(self.all("main img, main b, main script"), [])


class Learn(BrowserCase):
    def learn(self):
        self.open("#/jobs")
        self.button("Learn a text").click()

    @fake_only
    def test_a_pasted_text_becomes_a_job_then_a_memory(self):
        self.learn()
        self.type("dialog textarea", "Some words to learn. " * 20)
        self.type("dialog input[required]", "My Notes!")
        self.button("Learn", "dialog").click()
        self.until_text(".panel", "my-notes")
        share = self.wait(lambda: self.script("const p = document.querySelector('td progress[value]'); "
                                              "return p && p.value > 0 && p.value / p.max"), "progress")
        self.assertLess(share, 1)
        self.button("Generate with it").click()
        self.ready()
        self.assertEqual(self.one("[aria-label=Memory]").get_attribute("value"), "default/my-notes-mlp")

    @fake_only
    def test_a_file_gives_text_and_source_and_errors_are_shown(self):
        file = tempfile.NamedTemporaryFile("w", suffix=".txt", prefix="Tide Table ", delete=False, encoding="utf-8")
        self.addCleanup(os.unlink, file.name)
        with file:
            file.write("Ébb and flow of the 𝔸 harbour.")
        self.learn()
        self.one("dialog input[type=file]").send_keys(file.name)
        self.wait(lambda: self.script("return document.querySelector('dialog textarea').value").startswith("Ébb"))
        self.assertTrue(self.one("dialog input[required]").get_attribute("value").startswith("tide-table"))
        self.script("document.querySelector('dialog details').open = true; const r = "
                    "document.querySelector('dialog input[max=\"256\"]'); r.removeAttribute('max'); r.value = 999")
        self.expected = ["400 (Bad Request)"]
        self.button("Learn", "dialog").click()
        self.until_text("dialog .error-box", "config rank: expected 1 to 256, found 999")
        self.press(Keys.ESCAPE)
        self.wait(lambda: not self.all("dialog"))

    @fake_only
    def test_a_job_is_cancelled(self):
        self.addCleanup(setattr, self.fake, "learn_seconds", self.fake.learn_seconds)
        self.fake.learn_seconds = 60
        self.learn()
        self.type("dialog textarea", "Words")
        self.type("dialog input[required]", "never")
        self.button("Learn", "dialog").click()
        self.button("Cancel default/never-mlp").click()
        self.button("Cancel the job", "dialog").click()
        self.wait(lambda: "never-mlpcancelled" in self.text("tbody"))


class Generate(BrowserCase):
    def finished(self):
        self.until_text(".output", "Ended by")

    def test_text_streams_in_stretches_with_candidates_on_hover_and_focus(self):
        if self.fake:  # there is time to look while it writes
            self.addCleanup(setattr, self.fake, "step_seconds", self.fake.step_seconds)
            self.fake.step_seconds = 0.4
        self.generate(Tokens=96)
        self.wait(lambda: self.all(".stretch"))
        if self.fake:
            self.assertTrue(self.button("Stop", "form").is_enabled())  # it is there before the text is complete
            self.assertNotIn("Ended by", self.text(".output"))
        self.finished()
        stretches = self.all(".stretch")
        self.assertGreaterEqual(len(stretches), 2)
        spoke = self.script("return [...document.querySelectorAll('.stretch')].map((n) => [n.dataset.memory, "
                            "getComputedStyle(n).textDecorationColor, n.title])")
        for memory, colour, title in spoke:
            wanted = self.module("return (await import('/lib/colours.js')).memoryColour(given[0])", memory)
            self.assertEqual(colour, wanted, memory)
            self.assertIn(memory, title)
        legend = " ".join(self.texts(".legend .tag"))
        for memory in {m for m, _, _ in spoke}:
            self.assertIn(memory.removeprefix("default/"), legend)
        self.point_at(stretches[1])
        self.wait(lambda: "Step 1" in self.text(".step-panel h2"))
        self.wait(lambda: "Candidates" in self.text(".step-panel") or "No decision" in self.text(".step-panel"))
        self.script("arguments[0].focus()", stretches[0])
        self.wait(lambda: "Step 0" in self.text(".step-panel h2"))
        self.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
        self.wait(lambda: "Step 1" in self.text(".step-panel h2"))
        if self.fake:
            self.assertEqual(len({m for m, _, _ in spoke}), 3)
            self.assertEqual(len({colour for _, colour, _ in spoke}), 3)
            self.wait(lambda: len(self.all(".step-panel tbody tr")) == 7)
            row = self.text(".step-panel tbody tr")
            self.assertIn("drowned-bells-lora", row)
            self.assertRegex(row, r"chosen\d+\.\d %3\.000")

    @fake_only
    def test_hostile_text_stays_text_in_order(self):
        self.generate("hostile", Tokens=32)
        self.finished()
        self.assertEqual(self.texts(".stretch"), [fake_controller.HOSTILE_TEXT] * 2)
        self.assertEqual(self.all("main img, main b, main script"), [])

    @fake_only
    def test_stop_leaves_the_connection(self):
        self.fake.left.clear()
        self.generate(Tokens=16000)
        self.wait(lambda: self.all(".stretch"))
        self.press(Keys.ESCAPE)
        self.until_text(".output", "stopped")
        self.assertTrue(self.fake.left.wait(5))

    @fake_only
    def test_a_text_goes_on_while_another_page_is_looked_at(self):
        self.generate(Tokens=640)
        self.wait(lambda: len(self.all(".stretch")) > 2)
        self.go("#/jobs")
        self.go("#/generate")
        self.finished()
        self.assertEqual(len(self.all(".stretch")), 40)

    @fake_only
    def test_feedback_names_the_session_in_every_digit(self):
        self.generate(Tokens=16)
        self.finished()
        self.button("Good").click()
        self.until_text(".feedback", "8 steps judged")
        given = self.fake.policy.feedback[-1]
        trace = next(reversed(self.fake.traces.made))
        self.assertEqual(given, {"session": str(int(trace, 16)), "value": 1})

    @fake_only
    def test_an_error_in_the_stream_and_before_it_is_shown(self):
        self.expected = ["503 (Service Unavailable)", "400 (Bad Request)"]
        self.fake.fail["POST", "/api/v1/generate"] = fake_controller.Refused(
            503, "unavailable", "generate: expected a generator, found none connected")
        self.generate()
        self.fake.fail.clear()
        self.until_text(".error-box", "expected a generator, found none connected")
        self.button("Generate", "form").click()
        self.finished()


class Traces(BrowserCase):
    @fake_only
    def test_four_thousand_steps_stay_usable(self):
        self.open("#/trace/12f68c33f3460001")
        self.wait(lambda: self.script("return document.querySelector('.lane').ariaValueMax") == "3999")
        self.wait(lambda: len(self.all("canvas[role=img][aria-label]")) == 2)  # no gain: it was written
        self.assertLess(self.script("return document.querySelectorAll('main *').length"), 4000)
        lane = self.one(".lane")
        self.script("arguments[0].focus()", lane)
        self.press(Keys.END)
        self.until_text(".step-panel h2", "Step 3999")
        self.wait(lambda: self.texts("tr.selected td:first-child")[-1:] == ["3999"])
        self.press(Keys.HOME, Keys.ARROW_RIGHT)
        self.until_text(".step-panel h2", "Step 1")
        self.assertIn("step 1, ", lane.get_attribute("aria-valuetext"))
        self.script("const z = document.querySelector('[aria-label=\"Steps of the timeline\"]'); z.value = '200'; "
                    "z.dispatchEvent(new Event('change'))")
        self.press(Keys.END)
        self.until_text(".step-panel h2", "Step 3999")

    def test_what_if_stands_side_by_side(self):
        traces = self.api("traces?limit=100")["traces"]
        if self.fake:
            traces = [t for t in traces if t["trace"] == "12f68c33f3460002"]
        trace = next((t for t in traces if t["origin"] == "written" and t["steps"] > 1), None)
        if trace is None:
            self.skipTest("no trace of a written text")
        self.open(f"#/trace/{trace['trace']}?step=1&memory=base")
        self.until_text(".step-panel h2", "Step 1")
        self.button("What if").click()
        self.wait(lambda: len(self.all(".what-if section")) == 2, "two texts")
        self.assertIn("As recorded", self.text(".what-if"))
        self.assertIn("base", self.text(".what-if section:last-child"))
        if self.fake:
            left, right = (self.texts(f".what-if section:nth-child({n}) .common")[0] for n in (1, 2))
            self.assertEqual(left, right)
            self.assertNotEqual(self.texts(".what-if .other")[0], self.texts(".what-if .other")[1])
            self.assertIn("−41.20 nats", self.text(".what-if"))
            tops = self.script("return [...document.querySelectorAll('.what-if section')].map((s) => "
                               "s.getBoundingClientRect().top)")
            self.assertEqual(tops[0], tops[1])
            self.button("What if default/cinder-moth-lantern-lora@2").click()
            self.wait(lambda: "cinder-moth-lantern" in self.text(".what-if section:last-child"))

    @fake_only
    def test_another_policy_stands_side_by_side_or_chooses_the_same(self):
        self.open("#/trace/12f68c33f3460002")
        self.wait(lambda: self.script("return document.querySelectorAll('#policies option').length") > 3)
        digest = self.fake.policy.versions[-1]["digest"]
        self.assertIn(f"learned:{digest}", self.script(
            "return [...document.querySelectorAll('#policies option')].map((o) => o.value)"))
        place = ".policy-what-if"
        self.type(f"{place} input[type=text]", "base")
        self.button("What if this policy").click()
        self.wait(lambda: len(self.all(f"{place} .what-if section")) == 2, "two texts")
        others = len([s for s in (self.fake.traces.step("12f68c33f3460002", i) for i in range(14))
                      if s["active"][0]["memory"] != "base"])
        self.assertIn(f"base decides otherwise at {others} of 14 decisions; {others} steps", self.text(place))
        self.assertIn("−41.20 nats", self.text(place))
        self.type(f"{place} input[type=text]", "learned:3f6a")
        self.button("What if this policy").click()
        self.until_text(place, "0 of 14 decisions; no step has another memory")
        self.assertEqual(self.all(f"{place} .what-if"), [])
        file = tempfile.NamedTemporaryFile(suffix=".safetensors", delete=False)
        self.addCleanup(os.unlink, file.name)
        with file:
            file.write(b"a checkpoint")
        self.one(f"{place} input[type=file]").send_keys(file.name)
        self.button("What if this policy").click()
        self.until_text(place, "a note of the fake")
        self.assertIn("learned:" + fake_controller.sha("a checkpoint")[:12], self.text(place))
        self.type(f"{place} input[type=text]", "learned:3f6a")  # the last one named counts
        self.button("What if this policy").click()
        self.until_text(place, "learned:3f6a decides otherwise")
        self.expected = ["400 (Bad Request)"]
        self.fake.fail["POST", "/api/v1/policy/choices"] = fake_controller.Refused(
            400, "mismatch", "trace: decision of step 0: expected features (--trace-features)")
        self.addCleanup(self.fake.fail.clear)
        self.button("What if this policy").click()
        self.until_text(place, "expected features")

    @fake_only
    def test_replay_says_what_was_the_same(self):
        self.open("#/trace/12f68c33f3460002")
        self.button("Replay").click()
        self.until_text("main", "Identical: 14 steps, 224 tokens")
        self.until_text("main", "14 of 14 made again")

    @fake_only
    def test_a_trace_of_a_memory_is_found_and_deleted(self):
        self.fake.traces.add("00000000000000aa", "to be deleted", 3, fake_controller.NOW + 10**9)
        self.open("#/traces")
        self.until_text("tbody", "to be deleted")
        self.one("tbody a").click()
        self.ready()
        self.button("Delete").click()
        self.button("Delete", "dialog").click()
        self.wait(lambda: self.script("return location.hash") == "#/traces")
        self.assertNotIn("00000000000000aa", self.fake.traces.made)
        self.type("[aria-label=Memory]", "default/kelp-archive-lora")
        self.until_text(".empty", "No trace matches")


class Policy(BrowserCase):
    @fake_only
    def test_a_training_runs_and_its_policy_is_loaded(self):
        self.open("#/policy")
        self.until_text("main", "Where it goes wrong")
        self.assertIn("✕ harm to other prose", self.text("main"))
        self.assertIn("▼", self.text("table[aria-label='Lead of the policy']"))
        self.type("input[placeholder='made up']", "night-run")
        self.button("Train").click()
        self.until_text("table[aria-label=Trainings]", "night-run")
        self.wait(lambda: "night-run" in self.text("[aria-label=Curves]"), "its curves")
        self.button("Load night-run").click()
        before = len(self.fake.policy.versions)
        self.button("Load", "dialog").click()
        self.wait(lambda: len(self.fake.policy.versions) == before + 1)
        digest = self.fake.policy.versions[-1]["digest"][:12]
        self.until_text("[aria-label='What chooses']", digest)
        self.until_text("[aria-label=Versions]", digest)
        self.button("Unload the policy").click()
        self.button("Unload", "dialog").click()
        self.until_text("[aria-label='What chooses']", "No learned policy")
        self.until_text("[aria-label=Versions]", "unload")
        self.assertIn(digest, self.text("[aria-label=Versions]"))  # and can be loaded again
        self.fake.policy.load()

    @fake_only
    def test_a_gain_table_is_uploaded(self):
        file = tempfile.NamedTemporaryFile(suffix=".safetensors", delete=False)
        self.addCleanup(os.unlink, file.name)
        with file:
            file.write(bytes(64))
        name = os.path.basename(file.name)
        self.open("#/policy")
        self.until_text("[aria-label=Training]", "Add a gain table")
        self.script("document.querySelector('[aria-label=\"Gain table file\"]').classList.remove('unseen')")
        self.one("[aria-label='Gain table file']").send_keys(file.name)
        self.until_text("[aria-label=Training]", name)
        self.assertIn(name, self.fake.policy.tables)

    @fake_only
    def test_a_controller_that_trains_nothing_still_shows_its_policy(self):
        self.expected = ["503 (Service Unavailable)"]
        self.fake.fail["GET", "/api/v1/policy/training"] = fake_controller.Refused(
            503, "unavailable", "training: expected a folder (--training)")
        self.addCleanup(self.fake.fail.clear)
        self.open("#/policy")
        self.until_text("[aria-label=Training]", "expected a folder")
        self.until_text("[aria-label='What chooses']", self.fake.policy.versions[-1]["digest"][:12])

    @fake_only
    def test_a_checkpoint_is_uploaded(self):
        file = tempfile.NamedTemporaryFile(suffix=".safetensors", delete=False)
        self.addCleanup(os.unlink, file.name)
        with file:
            file.write(bytes(64))
        self.open("#/policy")
        before = len(self.fake.policy.versions)
        self.script("document.querySelector('[aria-label=\"Policy file\"]').classList.remove('unseen')")
        self.one("[aria-label='Policy file']").send_keys(file.name)
        self.wait(lambda: len(self.fake.policy.versions) == before + 1)


class Access(BrowserCase):
    def test_the_token_leaves_the_address_and_stays_in_the_tab(self):
        self.open()
        self.assertNotIn(self.token, self.browser.current_url)
        self.assertNotIn(self.token, self.browser.page_source + self.script("return JSON.stringify(localStorage)"))
        self.assertEqual(self.script("return sessionStorage.getItem('memslot-token')"), self.token)

    @fake_only
    def test_a_change_without_a_token_asks_for_one_and_is_then_made(self):
        self.expected = ["403 (Forbidden)"]
        self.open("#/memory/default/kelp-archive-000033", token=False)
        self.assertEqual(self.text("#token-button"), "Read only")
        self.button("Roll back to version 1").click()
        self.button("Roll back", "dialog").click()
        self.until_text("dialog + dialog", "expected the browser token, found none")
        self.type("#token", "a wrong one")
        self.button("Use this token").click()
        self.until_text("dialog + dialog", "found another")
        self.type("#token", self.token)
        self.button("Use this token").click()
        self.until_text("h1", "@3")
        self.go("#/bank")
        self.assertEqual(self.text("#token-button"), "Token")

    @fake_only
    def test_where_everything_needs_a_token_the_page_asks_once(self):
        self.expected = ["401 (Unauthorized)"]
        self.fake.all_need_token = True
        self.addCleanup(setattr, self.fake, "all_need_token", False)
        self.browser.get(self.url + "#/bank")
        self.type("#token", self.token)
        self.assertEqual(len(self.all("dialog")), 1)
        self.button("Use this token").click()
        self.wait(lambda: self.all("tbody tr"))

    @fake_only
    def test_a_lost_connection_is_shown_and_comes_back(self):
        self.expected = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]
        self.open()
        self.fake.stop()
        try:
            self.type("input[type=search]", "harbour")
            self.until_text("#banner", "does not answer")
            self.assertTrue(self.one("#banner").is_displayed())
            self.assertIn("not connected", self.text("#status"))
        finally:
            self.fake.start()
        self.wait(lambda: not self.all("#banner")[0].is_displayed())
        self.wait(lambda: self.texts("tbody td:first-child bdi")[:1] and
                  all("harbour" in n for n in self.texts("tbody td:first-child bdi")))
        self.until_text("#status", "generator")

    @fake_only
    def test_a_text_that_breaks_off_says_so(self):
        self.expected = ["ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET"]
        self.generate("break")
        self.until_text(".output .error-box", "does not answer")
        self.assertEqual(len(self.all(".stretch")), 3)

    @fake_only
    def test_no_generator_is_said(self):
        self.addCleanup(setattr, self.fake, "generators", self.fake.generators)
        self.fake.generators = []
        self.open()
        self.until_text("#status", "no generator")


class Keyboard(BrowserCase):
    def tab_to(self, name, limit=40):
        for _ in range(limit):
            self.press(Keys.TAB)
            if name in (self.focused() or ""):
                return
        self.fail(f"{name} is not reached by Tab")

    @fake_only
    def test_a_walk_without_a_pointer(self):
        self.open()
        self.script("document.activeElement.blur()")
        self.press(Keys.TAB)
        self.assertEqual(self.focused(), "Skip to the page")
        self.press(Keys.ENTER)
        self.assertEqual(self.script("return location.hash"), "#/bank")
        self.press("/")
        self.assertIn("Search", self.focused())
        self.press("drowned-bells-lora")
        self.wait(lambda: self.texts("tbody bdi")[:1] == ["drowned-bells-lora"])
        self.tab_to("drowned-bells-lora")
        self.press(Keys.ENTER)
        self.ready()
        self.assertIn("drowned-bells-lora", self.text("h1"))
        self.tab_to("Generate with it")
        self.press(Keys.ENTER)
        self.ready()
        self.press("/")
        self.press("The bells")
        self.press_with(Keys.CONTROL, Keys.ENTER)
        self.until_text(".output", "Ended by")
        self.assertIn("drowned-bells-lora", self.text(".legend"))
        self.tab_to("Seven bells")
        self.press(Keys.ARROW_RIGHT)
        self.until_text(".step-panel h2", "Step 1")
        self.tab_to("Open its trace")
        self.press(Keys.ENTER)
        self.wait(lambda: self.script("return location.hash").startswith("#/trace/"))
        self.ready()
        self.tab_to("Step")
        self.press(Keys.ARROW_RIGHT)
        self.until_text(".step-panel h2", "Step 1")
        self.tab_to("What if")
        self.press(Keys.ENTER)
        self.wait(lambda: len(self.all(".what-if section")) == 2, "two texts")

    @fake_only
    def test_arrows_go_from_row_to_row_and_focus_is_seen(self):
        self.open()
        self.script("document.querySelector('tbody a').focus()")
        first = self.focused()
        self.press(Keys.ARROW_DOWN)
        second = self.focused()
        self.assertNotEqual(first, second)
        self.assertNotEqual(self.script("return getComputedStyle(document.activeElement).outlineStyle"), "none")
        self.press(Keys.ARROW_UP)
        self.assertEqual(self.focused(), first)


if __name__ == "__main__":
    main()
