"""The controller's REST API over real sockets: routes, document, tokens and namespaces, bad input, strangers.

Arguments: memslot, memslot-controller, memslot-generator, make_synthetic_table. Exit code 77: skipped, no model.
"""
import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import unittest
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from pair import BUSY, CONTROLLER, PROMPT, Daemon, Pair, PairCase, model_path, wait_for  # noqa: E402

MAKE_TABLE = os.path.abspath(sys.argv.pop(1))
WIDTH = "576"  # of the default model
ALL, NOTES = "a-token-for-everything", "a-token-for-the-notes"
SECRET = "The harbour of Quillmere freezes only when the green lamp is out."


def options(folder):
    tokens = folder / "tokens"
    tokens.write_text(f"# who may ask\n{ALL} *\n{NOTES} notes\n")
    return "--http", "127.0.0.1:0", "--http-tokens", tokens


def port_of(daemon):
    return int(daemon.text().split("http=http://127.0.0.1:")[1].split("/")[0])


class HttpCase(PairCase):
    port = None

    @classmethod
    def setUpClass(cls):
        if PairCase.pair is None:
            PairCase.pair = Pair(options)
            HttpCase.port = port_of(PairCase.pair.daemons[0])

    def ask(self, method, path, body=None, token=ALL, port=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=120)
        self.addCleanup(connection.close)
        if token:
            headers["Authorization"] = "Bearer " + token
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read(), reply

    def get(self, path, status=200, **more):
        found, data, _ = self.ask("GET", "/api/v1" + path, **more)
        self.assertEqual(found, status, data)
        return json.loads(data)

    def post(self, path, body, status=200, **more):
        found, data, _ = self.ask("POST", "/api/v1" + path, body, **more)
        self.assertEqual(found, status, data)
        return json.loads(data)

    def events(self, method, path, body=None, **more):
        status, data, reply = self.ask(method, "/api/v1" + path, body, **more)
        self.assertEqual(status, 200, data)
        self.assertEqual(reply.headers["Content-Type"], "text/event-stream")
        return [json.loads(line[6:]) for line in data.decode().split("\n\n") if line]

    def learn(self, text, source, **more):
        job = self.post("/learn", {"text": text, "source": source,
                                   "config": {"kind": "lora", "max_steps": 2}, **more})["job"]
        last = self.events("GET", f"/jobs/{job}/events")[-1]
        self.assertEqual(last["type"], "learned", last)
        return job, last


class Memories(HttpCase):
    def test_a_page_is_searched_sorted_and_cut(self):
        whole = self.get("/memories")
        ids = [one["id"] for one in whole["memories"] if one["namespace"] == "default"]
        self.assertEqual(ids, sorted(ids))
        self.assertTrue({"corvandite-lora", "ferry_chess-lora"} <= set(ids) or len(ids) >= 2, ids)
        found = self.get("/memories?q=CORVAN")
        self.assertEqual([one["id"] for one in found["memories"]], [i for i in ids if "corvan" in i])
        self.assertEqual(found["total"], len(found["memories"]))
        page = self.get("/memories?namespace=default&sort=id&order=desc&offset=1&limit=1")
        self.assertEqual([one["id"] for one in page["memories"]], [sorted(ids, reverse=True)[1]])
        self.assertEqual(page["total"], len(ids))
        self.assertEqual(self.get("/memories?kind=mlp&namespace=default")["total"], 0)

    def test_what_is_known_of_one(self):
        shown = self.get("/memories/default/corvandite-lora")
        text = shown["source_text"].encode()
        cut = self.get("/memories/default/corvandite-lora/segments")
        self.assertEqual(cut["segments"][0]["begin"], 0)
        self.assertEqual(cut["segments"][-1]["end"], len(text.rstrip()))
        words = text[cut["segments"][0]["begin"]:cut["segments"][0]["end"]].split()
        self.assertEqual(len(words), cut["window_words"])
        plane = self.get("/memories/default/corvandite-lora/map?others=10")
        self.assertEqual(len(plane["own"]), shown["version"]["keys"])
        self.assertIn("default/ferry_chess-lora", [one["memory"] for one in plane["others"]])
        for point in plane["own"] + plane["others"] + [plane["mean"]]:
            self.assertLessEqual(point["x"] ** 2 + point["y"] ** 2, 1.0001)

    def test_a_file_goes_out_and_comes_back_and_goes(self):
        status, data, reply = self.ask("GET", "/api/v1/memories/default/corvandite-lora/export")
        self.assertEqual((status, reply.headers["Content-Type"]), (200, "application/octet-stream"))
        self.assertEqual(data, PairCase.pair.export.read_bytes())
        made = self.post("/memories/import?namespace=default&id=copy", data)["version"]
        self.assertEqual((made["id"], made["version"]), ("copy", 1))
        self.assertIn("copy", [one["id"] for one in self.get("/memories?q=copy")["memories"]])
        self.post("/memories/import?namespace=default&id=copy", data[:-1], status=500)
        self.assertEqual(self.post("/memories/default/copy/rollback", {"to": 1})["version"]["version"], 2)
        self.assertEqual(len(self.get("/memories/default/copy/history")["versions"]), 2)
        status, data, _ = self.ask("DELETE", "/api/v1/memories/default/copy")
        self.assertEqual((status, json.loads(data)), (200, {"erased": "default/copy"}))
        self.get("/memories/default/copy", status=404)
        self.assertEqual(self.get("/memories?q=copy")["total"], 0)

    def test_a_text_is_learned_and_speaks(self):
        _, learned = self.learn(SECRET * 6, "Quillmere")
        memory = learned["memory"]
        row = self.get("/memories?q=quillmere")["memories"][0]
        self.assertEqual((row["source"], row["kind"]), ("quillmere", "lora"))
        events = self.events("POST", "/generate", {"prompt": PROMPT, "memory": memory, "max_tokens": 20})
        self.assertEqual([one["type"] for one in events], ["start"] + ["step"] * (len(events) - 2) + ["done"])
        self.assertEqual(events[1]["memory"], memory)
        trace = events[-1]["trace"]
        wait_for(lambda: self.get(f"/traces/{trace}")["ended"])
        self.assertIn(trace, [one["trace"] for one in self.get("/traces?memory=" + memory.split("@")[0])["traces"]])
        self.assertTrue(self.post(f"/traces/{trace}/replay", {})["identical"])
        other = self.post(f"/traces/{trace}/replay", {"what_if": {"step": 0, "memory": "base"}})
        self.assertEqual(other["type"], "what_if")
        # The user chose: no policy can be asked in place of another.
        self.assertIn("the user chose", json.dumps(self.post(f"/policy/choices?trace={trace}&policy=base", None, 400)))
        done = self.events("POST", "/generate", {"prompt": PROMPT, "policy": "nearest:-1", "max_tokens": 20,
                                                 "deadline_ms": 10000})[-1]
        chosen = done["trace"]
        wait_for(lambda: self.get(f"/traces/{chosen}")["ended"])
        self.assertEqual(self.post(f"/policy/choices?trace={chosen}&policy=nearest:-1", None)["choices"], [])
        base = self.post(f"/policy/choices?trace={chosen}&policy=base", None)
        self.assertEqual([one["memory"] for one in base["choices"]], ["base"] * base["decisions"])
        other = self.post(f"/traces/{chosen}/replay", {"what_if": {"choices": base["choices"]}})
        self.assertEqual((other["type"], other["memory"]), ("what_if", "base"))
        # A checkpoint is the body, and may be larger than other bodies.
        self.post(f"/policy/choices?trace={chosen}", bytes(2 << 20), 500)
        self.post(f"/policy/choices?trace={chosen}&policy=base", b"x", 400)
        self.post(f"/policy/choices?trace={chosen}", None, 400)
        uses = lambda: self.get("/memories?q=quillmere&sort=uses&order=desc")["memories"][0]["uses"]  # noqa: E731
        wait_for(lambda: uses() > 0)
        self.ask("DELETE", f"/api/v1/traces/{trace}")
        self.get(f"/traces/{trace}", status=404)


class Document(HttpCase):
    def test_every_route_is_in_it_and_it_has_no_other(self):
        document = self.get("/openapi.json")
        for path, item in document["paths"].items():
            filled = path.replace("{namespace}", "default").replace("{id}", "nobody").replace("{", "").replace("}", "")
            for method in ("GET", "POST", "DELETE", "PUT", "PATCH"):
                if (method, path) in {("POST", "/api/v1/generate"), ("POST", "/api/v1/attest")}:
                    continue
                status, data, _ = self.ask(method, filled)
                if method.lower() in item:
                    self.assertNotIn("path: expected", data.decode("utf-8", "replace"), (method, path))
                    self.assertNotEqual(status, 405, (method, path))
                else:
                    # Another path's pattern may take it: then that one has the method.
                    self.assertIn(status, (405, 404, 503), (method, path, data))
            self.assertEqual(self.ask(list(item)[0].upper(), filled + "?nobody=1")[0], 400, path)


class Training(HttpCase):
    """The real memslot-rl on a synthetic table, made for the generator's model."""

    OPTIONS = {"updates": 20, "look_every": 10, "streams": 4, "hidden": 16, "candidates": 6, "seed": 3}

    def table(self, model, width=WIDTH):
        path = PairCase.pair.folder / "made.safetensors"
        subprocess.run([MAKE_TABLE, path, model, width], check=True)
        data = path.read_bytes()
        path.unlink()
        return data

    def trained(self, run):
        def found():
            return next(one for one in self.get("/policy/training")["runs"] if one["run"] == run)
        wait_for(lambda: found()["state"] != "running", 120)
        return found()

    def test_a_table_becomes_a_policy_that_acts(self):
        model = self.get("/status")["generators"][0]["model"]
        self.post("/policy/training/tables?name=ours.safetensors", self.table(model))
        self.post("/policy/training/tables?name=others.safetensors", self.table("b" * 64))
        self.post("/policy/training/tables?name=junk.safetensors", b"junk", status=500)
        tables = self.get("/policy/training")["tables"]
        self.assertLessEqual({"ours.safetensors", "others.safetensors"}, set(tables))
        self.assertNotIn("junk.safetensors", tables)
        run = self.post("/policy/training", {"table": "ours.safetensors", "options": self.OPTIONS})["run"]
        self.assertEqual(run, "ours-1")
        self.post("/policy/training", {"table": "ours.safetensors"}, status=409)
        done = self.trained(run)
        self.assertEqual((done["state"], done["message"], done["update"], done["policy"]), ("done", "", 20, True), done)
        self.assertEqual(done["options"]["hidden"], "16")
        curves = {one["run"]: one["rows"] for one in self.get("/policy/curves")["runs"]}
        self.assertEqual([row["type"] for row in curves[run]], ["start", "look", "look", "look", "end"])
        report = {one["name"]: one["report"] for one in self.get("/policy/comparisons")["comparisons"]}[run]
        self.assertIn("lagged_oracle", report["selectors"])
        loaded = self.post(f"/policy/training/{run}/load", None)["policy"]
        self.assertEqual(loaded["digest"], report["checkpoints"][0]["digest"])
        self.assertEqual(self.get("/policy")["policy"]["digest"], loaded["digest"])
        written = self.events("POST", "/generate", {"prompt": PROMPT, "max_tokens": 20, "policy": "learned"})
        self.assertEqual(written[-1]["type"], "done", written[-1])
        self.assertIn(loaded["digest"][:12], written[0]["policy"])
        # Of another model: refused, and the one before goes on.
        other = self.post("/policy/training", {"table": "others.safetensors", "run": "strange",
                                               "options": self.OPTIONS})["run"]
        self.assertEqual(self.trained(other)["state"], "done")
        self.post(f"/policy/training/{other}/load", None, status=400)
        self.assertEqual(self.get("/policy")["policy"]["digest"], loaded["digest"])
        self.assertEqual(self.ask("DELETE", f"/api/v1/policy/training/{other}")[0], 200)
        self.assertNotIn(other, [one["run"] for one in self.get("/policy/training")["runs"]])

    def test_one_is_stopped_and_what_is_wrong_is_told(self):
        model = self.get("/status")["generators"][0]["model"]
        self.post("/policy/training/tables?name=more.safetensors", self.table(model))
        long = {"table": "more.safetensors", "run": "long", "options": {**self.OPTIONS, "updates": 100000}}
        self.post("/policy/training", long)
        self.post("/policy/training/long/stop", None)
        self.assertEqual(self.trained("long")["state"], "stopped")
        self.post("/policy/training", {"table": "more.safetensors", "run": "bad", "options": {"gamma": 7}})
        bad = self.trained("bad")
        self.assertEqual(bad["state"], "failed")
        self.assertIn("gamma", bad["message"])
        self.post("/policy/training/bad/load", None, status=404)
        for body, status in (({"table": "none.safetensors"}, 404), ({"table": "../x.safetensors"}, 400), ({}, 400),
                             ({"table": "more.safetensors", "options": {"out": "x"}}, 400),
                             ({"table": "more.safetensors", "options": {"seed": [1]}}, 400),
                             ({"table": "more.safetensors", "run": "..%2fx"}, 400),
                             ({"table": "more.safetensors", "colour": 1}, 400)):
            self.post("/policy/training", body, status=status)
        for method, path in (("GET", ""), ("POST", ""), ("POST", "/tables?name=x.safetensors"), ("DELETE", "/long"),
                             ("POST", "/long/stop"), ("POST", "/long/load")):
            self.assertEqual(self.ask(method, "/api/v1/policy/training" + path, token=NOTES)[0], 403, path)
        self.assertEqual(self.ask("GET", "/api/v1/policy/comparisons", token=NOTES)[0], 403)
        self.assertEqual(self.get("/policy/curves", token=NOTES)["runs"], [])


class Rights(HttpCase):
    def test_a_token_sees_its_namespaces_and_no_trace_of_others(self):
        """No id, candidate, trace or text of another namespace, in whatever is asked."""
        self.learn(SECRET * 6, "Quillmere", namespace="notes", id="lamp")
        done = self.events("POST", "/generate", {"prompt": PROMPT, "memory": "default/corvandite-lora",
                                                 "max_tokens": 8})[-1]
        wait_for(lambda: self.get(f"/traces/{done['trace']}")["ended"])
        jobs = [one["job"] for one in self.get("/jobs")["jobs"] if one["namespace"] == "default"]
        paths = ["/session", "/status", "/memories", "/memories?namespace=default", "/memories?q=corvan", "/jobs",
                 "/traces", "/traces?memory=default/corvandite-lora", "/traces?source=corvandite", "/policy",
                 "/policy/versions", "/memories/notes/lamp", "/memories/notes/lamp/map", "/memories/notes/lamp/history",
                 f"/traces/{done['trace']}", f"/traces/{done['trace']}/check", f"/traces/{done['trace']}/export"]
        paths += [f"/memories/default/corvandite-lora{more}"
                  for more in ("", "/history", "/segments", "/map", "/export")]
        paths += [f"/jobs/{job}{more}" for job in jobs for more in ("", "/events")]
        for path in paths:
            status, data, _ = self.ask("GET", "/api/v1" + path, token=NOTES)
            said = data.decode("utf-8", "replace")
            asked = urllib.parse.unquote(path)
            for secret in ("corvandite", "ferry_chess", "Geological", done["trace"], *jobs):
                if secret not in asked:
                    self.assertNotIn(secret, said, (path, status))
            if "/default/" in path or done["trace"] in path or any(job in path for job in jobs):
                self.assertEqual(status, 404, (path, said))
        self.assertEqual([one["id"] for one in self.get("/memories", token=NOTES)["memories"]], ["lamp"])
        self.assertEqual(self.get("/session", token=NOTES)["namespaces"], ["notes"])
        for method, path, body in (
                ("POST", "/generate", {"prompt": "a", "memory": "default/corvandite-lora"}),
                ("POST", "/generate", {"prompt": "a", "namespaces": ["default"], "memory": "default/corvandite-lora"}),
                ("POST", "/score", {"text": "a b", "memory": "default/corvandite-lora"}),
                ("POST", f"/traces/{done['trace']}/replay", {}),
                ("POST", f"/policy/choices?trace={done['trace']}&policy=base", None),
                ("DELETE", f"/traces/{done['trace']}", None),
                ("DELETE", "/memories/default/corvandite-lora", None),
                ("POST", "/memories/default/corvandite-lora/rollback", {"to": 1}),
                ("POST", "/learn", {"text": "a b c", "source": "s", "namespace": "default"}),
                ("POST", "/memories/import?namespace=default", PairCase.pair.export.read_bytes())):
            status, data, _ = self.ask(method, "/api/v1" + path, body, token=NOTES)
            self.assertIn(status, (403, 404), (method, path, data))
        self.get("/memories/default/corvandite-lora")
        for path in ("load", "unload"):
            self.assertEqual(self.ask("POST", f"/api/v1/policy/{path}", b"", token=NOTES)[0], 403)

    def test_without_a_token_only_files_and_probes(self):
        for path in ("/", "/app.js", "/lib/api.js", "/chart.js", "/healthz", "/readyz"):
            self.assertEqual(self.ask("GET", path, token=None)[0], 200, path)
        for path in ("/api/v1/session", "/api/v1/openapi.json", "/api/v1/memories", "/metrics"):
            for token in (None, "not-a-token-of-ours", NOTES + "x"):
                self.assertEqual(self.ask("GET", path, token=token)[0], 401, path)
        self.assertEqual(self.ask("GET", "/metrics")[0], 200)

    def test_a_page_may_be_run_only_under_a_strict_policy(self):
        _, _, reply = self.ask("GET", "/", token=None)
        policy = reply.headers["Content-Security-Policy"]
        for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
            self.assertIn(part, policy)
        self.assertNotIn("unsafe", policy)


class OwnHost(HttpCase):
    """Without configured tokens: everybody on this host, but a browser only with the bank's token."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        pair = PairCase.pair
        cls.bank = pair.folder / "lone-bank"
        cls.lone = pair.controller(pair.ipc("lone"), cls.bank, "--http", "127.0.0.1:0")
        cls.lone_port = port_of(cls.lone)
        cls.token_file = pathlib.Path(f"{cls.bank}.token")

    def test_origin_host_and_the_browser_token(self):
        own = f"http://127.0.0.1:{self.lone_port}"
        job = ("POST", "/api/v1/jobs/none/cancel")
        token = self.token_file.read_text().strip()
        self.assertEqual(self.token_file.stat().st_mode & 0o777, 0o600)

        def status(method, path, token=None, **headers):
            return self.ask(method, path, token=token, port=self.lone_port, **headers)[0]
        self.assertEqual(status(*job), 404)  # no browser: as from a shell
        self.assertEqual(status(*job, token="whatever"), 404)
        self.assertEqual(status(*job, Origin=own), 403)
        self.assertEqual(status(*job, Origin=own, token="whatever"), 403)
        self.assertEqual(status(*job, Origin=own, token=token), 404)
        self.assertEqual(status(*job, Origin="http://elsewhere.example", token=token), 403)
        self.assertEqual(status("GET", "/api/v1/memories", Host="elsewhere.example"), 403)
        self.assertEqual(status("GET", "/api/v1/memories", Origin="http://elsewhere.example"), 403)
        self.assertIs(self.get("/session", token=None, port=self.lone_port)["may_change"], False)
        session = self.get("/session", token=token, port=self.lone_port)
        self.assertEqual([session[name] for name in ("may_change", "traces", "learning")], [True, True, False])

    def test_by_default_it_does_without_a_port_that_is_taken(self):
        pair = PairCase.pair
        with contextlib.suppress(OSError):  # where somebody has it already, so much the better
            holder = socket.create_server(("127.0.0.1", 7401))
            self.addCleanup(holder.close)
        second = pair.controller("tcp://127.0.0.1:0", pair.folder / "second-bank", "--http", "auto")
        self.assertNotIn("http=", second.text())
        self.assertIn("port 127.0.0.1:7401 is taken", second.text())
        self.assertEqual(second.stop(), 0)

    def test_by_default_it_is_no_way_around_a_guarded_link(self):
        pair = PairCase.pair
        key = pair.folder / "auto.key"
        self.assertEqual(pair.client("keygen", key).returncode, 0)
        client = f"{(key.parent / (key.name + '.pub')).read_text().strip()} client notes"
        for endpoint, more in ((pair.ipc("guarded"), ()),
                               ("tcp://127.0.0.1:0", ("--key-file", key, "--clients", client))):
            guarded = pair.controller(endpoint, pair.folder / "guarded-bank", "--http", "auto", *more)
            self.assertNotIn("http", guarded.text())
            self.assertEqual(guarded.stop(), 0)

    def test_a_busy_port_and_bad_settings_are_told(self):
        pair = PairCase.pair
        for more, said in ((("--http", f"127.0.0.1:{self.lone_port}"), "expected a port that is free"),
                           (("--http", "0.0.0.0:0"), "loopback"),
                           (("--http", "nonsense"), "ADDRESS:PORT"),
                           (("--http", "127.0.0.1:0", "--http-tokens", pair.folder / "none"), "file of tokens")):
            with self.assertRaises(RuntimeError) as refused:
                Daemon(CONTROLLER, ["--bank", pair.folder / "other", "--endpoint", pair.ipc("other"), *more],
                       pair.folder / "refused.log")
            self.assertIn(said, str(refused.exception))
            (pair.folder / "refused.log").unlink()
        tokens = pair.folder / "bad-tokens"
        for text, said in (("short *", "16 characters"), ("no-namespaces-here", "TOKEN NAMESPACE"),
                           (f"{ALL} *\n{ALL} *", "each once"), ("# none\n", "at least one")):
            tokens.write_text(text)
            with self.assertRaises(RuntimeError) as refused:
                Daemon(CONTROLLER, ["--bank", pair.folder / "other", "--endpoint", pair.ipc("other"), "--http",
                                    "127.0.0.1:0", "--http-tokens", tokens], pair.folder / "refused.log")
            self.assertIn(said, str(refused.exception))
            (pair.folder / "refused.log").unlink()


class BadInput(HttpCase):
    def test_another_method_is_told_which_the_path_knows(self):
        for path, allow in (("/memories", "GET, HEAD"), ("/policy/training", "GET, HEAD, POST"), ("/learn", "POST")):
            status, body, reply = self.ask("PUT", "/api/v1" + path)
            self.assertEqual((status, reply.headers["Allow"]), (405, allow))
            self.assertIn("expected " + allow, body.decode())
        self.assertEqual(self.ask("POST", "/")[2].headers["Allow"], "GET, HEAD")

    def test_each_is_refused_with_its_status(self):
        for method, path, body, expected in (
                ("GET", "/nowhere", None, 404), ("PUT", "/memories", None, 405),
                ("GET", "/memories?limit=0", None, 400), ("GET", "/memories?limit=many", None, 400),
                ("GET", "/memories?sort=colour", None, 400), ("GET", "/memories?nobody=1", None, 400),
                ("GET", "/memories?kind=nothing", None, 400), ("GET", "/memories?order=up", None, 400),
                ("GET", "/memories/default/nobody", None, 404), ("GET", "/memories/default/..%2F..%2Fetc", None, 404),
                ("GET", "/memories/default/corvandite-lora?version=99", None, 404),
                ("GET", "/traces/0000000000000000", None, 404), ("GET", "/traces/..%2f..%2fbank", None, 404),
                ("GET", "/traces?since_unix_ms=-1", None, 400), ("GET", "/jobs/none", None, 404),
                ("GET", "/jobs?state=asleep", None, 400), ("POST", "/generate", "{not json", 400),
                ("POST", "/generate", "[" * 100, 400), ("POST", "/generate", {"prompt": 7}, 400),
                ("POST", "/generate", {"prompt": "a", "colour": 1}, 400),
                ("POST", "/learn", {"text": "", "source": "s"}, 400), ("POST", "/learn", {"text": "a"}, 400),
                ("POST", "/memories/default/corvandite-lora/rollback", {"to": "two"}, 400),
                ("POST", "/memories/import?namespace=default", b"junk", 500),
                ("POST", "/policy/load", b"junk", 500), ("POST", "/policy/feedback", {"session": "x", "value": 1}, 400),
                ("POST", "/tokenize", "a" * (2 << 20), 413)):
            status, data, _ = self.ask(method, "/api/v1" + path, body)
            self.assertEqual(status, expected, (method, path, data[:300]))
            self.assertTrue(json.loads(data)["error"]["message"], path)
        for path in ("/../etc/passwd", "/%2e%2e/etc/passwd", "/lib/../../x", "/openapi.json", "/lib/", "/index"):
            self.assertEqual(self.ask("GET", path)[0], 404, path)

    def test_a_stranger_with_a_large_body_is_refused_before_it_is_read(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as stranger:
            stranger.sendall(b"POST /api/v1/memories/import HTTP/1.1\r\nHost: localhost\r\n"
                             b"Content-Length: 200000000\r\n\r\n")
            self.assertIn(b"401", stranger.recv(4096).split(b"\r\n")[0])

    def test_a_client_that_leaves_ends_its_generation(self):
        body = json.dumps({"prompt": PROMPT, "max_tokens": 1500})
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as leaving:
            leaving.sendall(f"POST /api/v1/generate HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALL}\r\n"
                            f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
            self.assertIn(b"200", leaving.recv(4096).split(b"\r\n")[0])
        begun = time.monotonic()
        wait_for(lambda: self.get("/status")["sessions"] == 0)
        self.assertLess(time.monotonic() - begun, 10)  # all of it would take longer


if __name__ == "__main__":
    if not os.path.exists(model_path()):
        print("SKIPPED: no model at", model_path())
        sys.exit(77)
    unittest.main(verbosity=2)
