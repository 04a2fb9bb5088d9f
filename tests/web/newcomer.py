"""The way of somebody who has just met it, in a real browser, on a real pair with the default model: learn a file, write
with it and see which memory spoke, replay, ask what if, train a policy and let it choose.

    newcomer.py MAKE_SYNTHETIC_TABLE [MEMSLOT MEMSLOT_CONTROLLER MEMSLOT_GENERATOR]

Without programs the pair is the one of MEMSLOT_INSPECTOR_URL and MEMSLOT_INSPECTOR_TOKEN, in containers for one. It should be one
for tests: memory and training are deleted at the end, and the policy, learned from an invented table, unloaded; it stays in the
list of versions, and so does the table. Exit code 77: skipped, loudly, where browser or model are missing.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

PROGRAMS = [os.path.abspath(path) for path in sys.argv[1:]]
sys.argv[1:] = PROGRAMS[1:]
if PROGRAMS[1:]:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
    from pair import CONTROLLER, GENERATOR, Client, Daemon, model_path, wait_for  # noqa: E402

import browser  # noqa: E402
from browser import BrowserCase, main  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "samples" / "sources" / "ferry_chess.txt"
PROMPT = "Ferry chess is played"
RUN = f"newcomer-{os.getpid()}"
LONG = 180  # seconds, for learning and training beside other work


class Newcomer(BrowserCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="memslot-newcomer-")
        cls.addClassCleanup(cls.folder.cleanup)
        if PROGRAMS[1:]:
            at = pathlib.Path(cls.folder.name)
            endpoint = f"ipc://{at}/link"
            controller = Daemon(CONTROLLER, ["--bank", at / "bank", "--endpoint", endpoint, "--http", "127.0.0.1:0"],
                                at / "controller.log")
            cls.addClassCleanup(controller.stop)
            generator = Daemon(GENERATOR, ["--model", model_path(), "--endpoint", endpoint], at / "generator.log")
            cls.addClassCleanup(generator.stop)
            wait_for(lambda: Client(PROGRAMS[1], endpoint)("status").returncode == 0)
            browser.URL = controller.text().split("http=")[1].split()[0]
            browser.TOKEN = (at / "bank.token").read_text().strip()
        super().setUpClass()

    def choose(self, label, value):
        """In the open dialog's, or the page's, field of that name."""
        self.script("""
            const field = [...document.querySelectorAll('.field')].find((f) =>
              f.querySelector('label').textContent === arguments[0]).querySelector('select, input');
            field.value = arguments[1];
            for (const type of ['input', 'change']) field.dispatchEvent(new Event(type, {bubbles: true}));""",
                    label, str(value))

    def learn(self):
        self.open("#/jobs")
        self.button("Learn a text").click()
        self.one("dialog input[type=file]").send_keys(str(SOURCE))
        self.wait(lambda: self.script("return document.querySelector('dialog textarea').value").startswith(SOURCE.read_text()[:20]))
        self.script("document.querySelector('dialog details').open = true")
        self.choose("Kind", "lora")
        self.choose("Steps at most", 4)
        self.button("Learn", "dialog").click()
        self.until_text(".panel", "ferry_chess-lora")
        self.until_text("tbody", "ferry_chess-loradone", LONG)

    def write(self, memory):
        self.go("#/generate")
        self.type("[aria-label=Memory]", memory)
        self.type(".page textarea", PROMPT)
        self.script("document.querySelector('.page details').open = true")
        self.choose("Tokens", 24)
        self.button("Generate", "form").click()
        self.until_text(".output", "Ended by", 60)
        return self.script("return [...document.querySelectorAll('.stretch')].map((n) => n.dataset.memory)")

    def replay_and_ask(self):
        self.button("Open its trace").click()
        self.ready()
        self.button("Replay").click()
        self.until_text("main", "Identical: 2 steps, 24 tokens", 60)
        self.choose("this memory", "base")
        self.button("What if").click()
        self.wait(lambda: len(self.all(".what-if section")) == 2, "two texts", 60)
        self.assertIn("base", self.text(".what-if section:last-child"))
        self.assertRegex(self.text(".what-if"), r"−\d+\.\d+ nats")

    def train(self):
        model = self.api("status")["generators"][0]["model"]
        table = os.path.join(self.folder.name, "first.safetensors")
        subprocess.run([PROGRAMS[0], table, model, "576"], check=True)
        self.go("#/policy")
        self.until_text("[aria-label=Training]", "Add a gain table")
        self.script("document.querySelector('[aria-label=\"Gain table file\"]').classList.remove('unseen')")
        self.one("[aria-label='Gain table file']").send_keys(table)
        self.until_text("[aria-label=Training] select", "first.safetensors")
        self.choose("Updates", 20)
        self.choose("Name of the run", RUN)
        self.button("Train").click()
        self.until_text("table[aria-label=Trainings]", "running")
        self.until_text("table[aria-label=Trainings]", "done", LONG)
        self.wait(lambda: f"{RUN}: net gain on validation" in self.text("[aria-label=Curves]"), "its curves")
        self.until_text("[aria-label=Comparison]", "lagged oracle")
        self.button(f"Load {RUN}").click()
        self.button("Load", "dialog").click()
        digest = self.wait(lambda: (self.api("policy")["policy"] or {}).get("digest"), "the policy")[:12]
        self.until_text("[aria-label='What chooses']", digest)
        return digest

    def delete(self):
        self.go("#/policy")
        self.button("Unload the policy").click()
        self.button("Unload", "dialog").click()
        self.until_text("[aria-label='What chooses']", "No learned policy")
        self.go("#/memory/default/ferry_chess-lora")
        self.button("Delete").click()
        self.type("#confirm-name", "ferry_chess-lora")
        self.button("Delete", "dialog").click()
        self.wait(lambda: self.script("return location.hash") == "#/bank")
        request = urllib.request.Request(f"{self.url}api/v1/policy/training/{RUN}", method="DELETE",
                                         headers={"Authorization": "Bearer " + self.token})
        with urllib.request.urlopen(request, timeout=30) as reply:
            self.assertEqual(reply.status, 200)

    def test_from_a_file_to_a_policy_that_chooses(self):
        self.learn()
        self.assertEqual(set(self.write("default/ferry_chess-lora")), {"default/ferry_chess-lora"})
        self.assertIn("ferry_chess-lora", " ".join(self.texts(".legend .tag")))
        self.replay_and_ask()
        digest = self.train()
        spoke = self.write("auto")
        self.assertEqual(len(spoke), 2)
        self.assertIn(f"learned:{digest}", self.text(".output"))
        self.script("arguments[0].focus()", self.one(".stretch"))
        self.until_text(".step-panel", "Candidates")
        self.until_text(".step-panel tbody", "ferry_chess-lora")
        self.delete()


if __name__ == "__main__":
    if PROGRAMS[1:] and not os.path.exists(model_path()):
        print("SKIPPED: no model at", model_path(), file=sys.stderr)
        sys.exit(77)
    main()
