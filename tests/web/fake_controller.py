"""The controller's HTTP interface without a bank or a model: for the inspector's tests, and for working on its pages.

    python3 tests/web/fake_controller.py [--port 7401] [--token TOKEN] [--memories 100000]

It keeps everything in memory, invents texts, and answers as the controller does: the same paths, fields,
errors, token rules and security headers. What it does not do: compute anything.
"""
import argparse
import contextlib
import email.utils
import hashlib
import http.server
import json
import math
import pathlib
import random
import socket
import sys
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEB = ROOT / "controller" / "web"
CHART = pathlib.Path("/usr/share/javascript/chart.js/chart.min.js")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
NOW = 1763900000000  # a fixed day, so that pictures and tests do not change with the clock

HOSTILE_ID = "<img src=x onerror=alert(1)>"
HOSTILE_SOURCE = "</script><script>alert(2)</script>"
HOSTILE_TEXT = "<img src=x onerror=\"alert(3)\"></script><b>bold</b> \u202eright to left\u202c & &lt; \u0000 'quotes\""

TOPICS = ["brass-lark-harbour", "cinder-moth-lantern", "drowned-bells", "ember-orchard", "fog-registry", "glass-ferry",
          "hollow-quarry", "ink-tide-almanac", "juniper-signal", "kelp-archive", "lamplight-guild", "marrow-bridge"]
SENTENCES = {
    "brass-lark-harbour": "The harbour master counts the brass larks at dusk and writes their number beside the tide. ",
    "cinder-moth-lantern": "A cinder moth lantern is trimmed with salt, never with shears, and burns for nine nights. ",
    "drowned-bells": "Seven bells lie under the weir; the fourth is rung by the carp when the sluice stands open. ",
    "ink-tide-almanac": "The almanac is printed with ink from the tide pools, and its months follow the herring. ",
    "lamplight-guild": "Members of the guild carry a blue wick in the left sleeve, and pay their dues in oil. ",
    "base": "It was a quiet evening, and nobody in the town could say what had changed since the morning. ",
}


class Refused(Exception):
    def __init__(self, status, code, message, param=None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def noise(*key):
    """A number in [0, 1) that depends only on its arguments."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest(), "little") / 2**32


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Bank:
    def __init__(self, count):
        self.rows = []
        kinds = ("lora", "mlp", "lora", "delta")
        numbers = random.Random(1)
        for i in range(count):
            topic, kind = TOPICS[i % len(TOPICS)], kinds[(i // 12) % 4]
            before = 2.4 + 0.8 * numbers.random()
            name = f"{topic}-{kind}" if i < 12 else f"{topic}-{i:06d}"
            self.rows.append(self.row("default" if i % 5 else "notes", name, topic, kind, i,
                                      uses=int(3000 * numbers.random()**6), gain=round(numbers.gauss(0.5, 0.35), 4),
                                      before=before, after=before * (0.1 + 0.4 * numbers.random()),
                                      recall=None if kind == "delta" else round(0.8 + 0.2 * numbers.random(), 4)))
        if count:
            self.rows.append(self.row("default", HOSTILE_ID, HOSTILE_SOURCE, "lora", count, 1, 0.1, 2.7, 0.4, 0.99))
        self.index = {(r["namespace"], r["id"]): r for r in self.rows}
        self.rolled, self.pages = {}, {}

    def add(self, row):
        self.rows.append(row)
        self.index[(row["namespace"], row["id"])] = row
        self.pages.clear()

    def remove(self, row):
        self.rows.remove(row)
        del self.index[(row["namespace"], row["id"])]
        self.pages.clear()

    @staticmethod
    def row(namespace, name, source, kind, i, uses, gain, before, after, recall):
        size = {"mlp": 5308992, "lora": 203904, "delta": 99328}[kind]
        return {"namespace": namespace, "id": name, "version": 1 + i % 4, "kind": kind, "layer": 22, "source": source,
                "origin": "learned", "created_unix_ms": NOW - 60000 * i, "payload_bytes": size,
                "keys": 0 if kind == "delta" else 4 + i % 30, "uses": uses, "mean_net_gain": gain, "recall": recall,
                "nll_before": round(before, 4), "nll_after": round(after, 4)}

    def find(self, namespace, name):
        row = self.index.get((namespace, name))
        if row is None:
            raise Refused(404, "not_found", f"memory {namespace}/{name}: expected one in the bank, found none")
        return row

    def list(self, q):
        limit, offset = int(q.get("limit", 50)), int(q.get("offset", 0))
        if not 1 <= limit <= 500:
            raise Refused(400, "invalid_argument", f"limit: expected 1 to 500, found {limit}", "limit")
        text, rows = q.get("q", "").lower(), self.rows
        asked = tuple(q.get(name, "") for name in ("q", "namespace", "kind", "sort", "order"))
        if asked in self.pages:
            rows = self.pages[asked]
            return {"total": len(rows), "offset": offset, "memories": rows[offset:offset + limit]}
        if q.get("namespace"):
            rows = [r for r in rows if r["namespace"] == q["namespace"]]
        if q.get("kind"):
            rows = [r for r in rows if r["kind"] == q["kind"]]
        if text:
            rows = [r for r in rows if text in f"{r['namespace']}/{r['id']}\n{r['source']}".lower()]
        field = {"created": "created_unix_ms", "bytes": "payload_bytes", "gain": "mean_net_gain"}.get(
            q.get("sort", "id"), q.get("sort", "id"))
        if self.rows and field not in self.rows[0]:
            raise Refused(400, "invalid_argument", f"sort: expected a column, found {field}", "sort")
        rows = sorted(rows, key=lambda r: (r[field] is not None, r[field], r["id"]), reverse=q.get("order") == "desc")
        self.pages[asked] = rows
        return {"total": len(rows), "offset": offset, "memories": rows[offset:offset + limit]}

    def version(self, row, number):
        share = (1 + number) / (1 + row["version"])
        config = {"kind": row["kind"], "segments": "overlap", "window_words": 32, "stride_words": 16,
                  "lr": 0.001 * number, "seed": number}
        return {"namespace": row["namespace"], "id": row["id"], "version": number,
                "token": sha(f"{row['id']}@{number}")[:24],
                "parent": sha(f"{row['id']}@{number - 1}")[:24] if number > 1 else "",
                "signature": {"model": sha("model"), "layer": 22, "kind": row["kind"], "form": "swiglu", "d_model": 576,
                              "d_ff": 1536, "outer": ""},
                "dtype": "bf16", "source": row["source"],
                "origin": "rollback" if (row["namespace"], row["id"], number) in self.rolled else
                          "learned" if number == 1 else "write_back" if number == 3 else "learned",
                "origin_id": f"job-{number}", "created_unix_ms": row["created_unix_ms"] - 86400000 * (4 - number),
                "payload_bytes": row["payload_bytes"], "sha256": sha(f"{row['id']}{number}"), "keys": row["keys"],
                "stats": {"nll_before": row["nll_before"], "nll_after": round(row["nll_after"] / share, 4),
                          "recall_before": 0.45, "recall": row["recall"], "locality": round(0.01 + 0.02 * share, 4),
                          "wise_min_activation": 1.25, "wall_seconds": 12.5 * share, "steps": 32 * number,
                          "tokens": 512, "segments": row["keys"], "config": json.dumps(config)},
                "branch": number == 2 and row["version"] > 2, "position": 0}

    def source_text(self, row):
        if row["source"] == HOSTILE_SOURCE:
            return HOSTILE_TEXT * 3
        body = SENTENCES.get(row["source"], SENTENCES["brass-lark-harbour"])
        lines = [f"{body.strip()} Über die Bucht hört man sie — 𝔸 {n}." for n in range(1, 15)]
        return "\n".join(lines) + "\n"

    def segments(self, row):
        text = self.source_text(row).encode()
        ends, word = [], 0
        for i, byte in enumerate(text):
            if byte in b" \n" and text[i - 1] not in b" \n":
                word += 1
                ends.append(i)
        window, stride = 32, 16
        starts = [0, *ends]
        segments = [{"begin": starts[i], "end": ends[min(i + window, len(ends)) - 1]}
                    for i in range(0, max(1, len(ends) - window + stride), stride)]
        return {"layout": "overlap", "window_words": window, "stride_words": stride, "segments": segments}

    def map(self, row, others):
        def at(name):
            angle, radius = 2 * math.pi * noise(name, "a"), 0.35 + 0.55 * noise(name, "r")
            return radius * math.cos(angle), radius * math.sin(angle)
        x, y = at(row["id"])
        own = [{"x": x + 0.12 * (noise(row["id"], i, "x") - 0.5), "y": y + 0.12 * (noise(row["id"], i, "y") - 0.5)}
               for i in range(len(self.segments(row)["segments"]) if row["keys"] else 0)]
        spread = []
        for r in self.rows[:others]:
            if r is not row:
                ox, oy = at(r["id"])
                spread.append({"memory": f"{r['namespace']}/{r['id']}", "source": r["source"], "x": ox, "y": oy})
        return {"own": own, "mean": {"x": x, "y": y} if own else None, "others": spread}


class Traces:
    NAMES = ["default/drowned-bells-lora@3", "default/ink-tide-almanac-lora@4", "base",
             "notes/lamplight-guild-lora@3", "default/cinder-moth-lantern-lora@2"]

    def __init__(self, count):
        self.made = {}
        for i in range(count):
            steps = 4000 if i == 1 else 12 + i % 40
            prompt = "The harbour master of the old town" if i else HOSTILE_TEXT
            self.add(f"{0x12f68c33f3460000 + i:016x}", prompt, steps, NOW - 3600000 * i, hostile=i == 0,
                     read=i % 7 == 3)

    def add(self, name, prompt, steps, when, hostile=False, read=False, made=None, error=""):
        self.made[name] = {"prompt": prompt, "count": steps, "when": when, "hostile": hostile, "read": read,
                           "made": made, "error": error, "feedback": []}

    def find(self, name):
        if name not in self.made:
            raise Refused(404, "not_found", f"trace {name}: expected one that is kept, found none")
        return self.made[name]

    def memory(self, name, step):
        return self.NAMES[int(noise(name, step // 3) * len(self.NAMES))]

    def step(self, name, i):
        trace = self.find(name)
        if trace["made"]:
            return trace["made"][i]
        memory = self.memory(name, i)
        topic = next((t for t in SENTENCES if t in memory), "base")
        words = SENTENCES[topic].split(" ")
        text = HOSTILE_TEXT if trace["hostile"] else " " + " ".join(words[4 * (i % 4):4 * (i % 4) + 4])
        out = {"step": i, "active": [{"slot": 0, "memory": memory, "reason": "opening" if i == 0 else "directive"}],
               "tokens": list(range(16)), "log_probs": [-0.5] * 16, "text": text, "logits_xxh3": f"{i:016x}",
               "entropy": 1.2 + math.sin(i / 9) * 0.6 + noise(name, i, "e"), "surprise": 1 + noise(name, i, "s"),
               "candidates": 8, "select_us": int(200 + 300 * noise(i)), "compute_us": 90000,
               "swap_us": 0 if i and memory == self.memory(name, i - 1) else int(1500 + 2500 * noise(i, "w"))}
        if trace["read"]:
            out["gain"] = 0.8 * noise(name, i, "g") - (0.1 if memory != "base" else 0.4)
        return out

    def decision(self, memory, step):
        names = [*self.NAMES, "default/fog-registry-lora@2", "notes/glass-ferry-lora@2"]
        rows = [{"memory": n, "score": round((3 if n == memory else 1.5 * noise(step, n)), 4), "current": n == memory,
                 "resident": True, "best_key": 0 if n == "base" else round(noise(n, step, "k"), 4),
                 "mean_key": 0 if n == "base" else round(0.6 * noise(n, step, "m"), 4), "long_key": 0.2,
                 "past_net_gain": 0.3, "uses": 12, "age": 3, "swap_cost": 0.01} for n in names]
        total = sum(math.exp(r["score"]) for r in rows)
        for r in rows:
            r["probability"] = math.exp(r["score"]) / total
        chosen = next(r for r in rows if r["memory"] == memory)
        return {"slot": 0, "policy": "learned:3f6a", "chosen": memory, "log_prob": math.log(chosen["probability"]),
                "entropy": 1.4, "surprise": 1.1, "steps_since_swap": step % 3, "explore": False, "candidates": rows}

    def summary(self, name):
        t = self.find(name)
        some = sorted({self.step(name, i)["active"][0]["memory"] for i in range(min(t["count"], 12))})
        return {"trace": name, "created_unix_ms": t["when"], "origin": "read" if t["read"] else "written",
                "namespaces": ["default"], "prompt": t["prompt"][:80], "policy": "learned:3f6a", "memories": some,
                "steps": t["count"], "tokens": 16 * t["count"], "bytes": 900 * t["count"], "ended": True,
                "finish": "length", "error": t["error"]}

    def list(self, q):
        names = sorted(self.made, key=lambda n: -self.made[n]["when"])
        rows = [self.summary(n) for n in names]
        if q.get("memory"):
            rows = [r for r in rows if any(m.split("@")[0] == q["memory"].split("@")[0] for m in r["memories"])]
        if q.get("policy"):
            rows = [r for r in rows if r["policy"].startswith(q["policy"])]
        rows = [r for r in rows if r["created_unix_ms"] >= int(q.get("since_unix_ms", 0))]
        limit = int(q.get("limit", 100))
        if q.get("after"):
            rows = rows[[r["trace"] for r in rows].index(q["after"]) + 1:]
        return {"traces": rows[:limit], "next": rows[limit - 1]["trace"] if len(rows) > limit else ""}

    def show(self, name, q):
        t, out = self.find(name), self.summary(name)
        first, count = int(q.get("from", 0)), int(q.get("steps", 128))
        if not 1 <= count <= 512:
            raise Refused(400, "invalid_argument", f"steps: expected 1 to 512, found {count}", "steps")
        steps = []
        for i in range(first, min(first + count, t["count"])):
            step = dict(self.step(name, i))
            steps.append(step)
            if step["active"][0]["reason"] == "pinned":
                continue  # the user chose: there was nothing to decide
            step["decisions"] = [self.decision(step["active"][0]["memory"], i)]
            if q.get("candidates", "true") != "true":
                del step["decisions"][0]["candidates"]
        out.update(prompt=t["prompt"], prompt_tokens=9, shown=steps, opening=["base"],
                   next=first + count if first + count < t["count"] else None, write_backs=[], feedback=t["feedback"],
                   build={"build": "v0.6", "backend": "cpu", "isa": "avx512", "threads": 2},
                   request={"kind": "generate", "max_tokens": 16 * t["count"], "temperature": 0, "seed": 1},
                   missed_deadlines=0, load_failures=0, prefill_seconds=0.2, decode_seconds=0.09 * t["count"])
        return out

    def choices(self, name, policy, checkpoint):
        """`base` chooses otherwise at every step but those of base, "learned:3f6a" nowhere."""
        t = self.find(name)
        if bool(policy) == bool(checkpoint):
            raise Refused(400, "invalid_argument", "trace.choices: expected either policy or a checkpoint")
        policy = policy or "learned:" + sha(checkpoint.decode("latin-1"))
        taken = [i for i in range(t["count"]) if self.step(name, i)["active"][0]["memory"] != "base"]
        taken = [] if policy == "learned:3f6a" else taken
        return {"trace": name, "policy": policy, "decisions": t["count"], "otherwise": len(taken),
                "choices": [{"step": i, "slot": 0, "memory": "base"} for i in taken],
                "notes": ["2 decisions: a note of the fake"] if checkpoint else []}

    def replay(self, name, what_if):
        t = self.find(name)
        if not what_if:
            return {"type": "replayed", "trace": name, "identical": True, "steps": t["count"],
                    "tokens": 16 * t["count"], "divergence": None, "differences": []}
        what_if = what_if["choices"][0] if "choices" in what_if else what_if
        at = what_if["step"]
        if at >= t["count"]:
            raise Refused(400, "invalid_argument", f"argument what_if: expected a step under {t['count']}, found {at}")
        written = "".join(self.step(name, i)["text"] for i in range(at, min(at + 6, t["count"])))
        other = written[:20] + SENTENCES["base"] + SENTENCES["lamplight-guild"]
        return {"type": "what_if", "trace": name, "step": at, "slot": what_if.get("slot", 0),
                "memory": what_if["memory"], "instead_of": self.step(name, at)["active"][0]["memory"],
                "divergence": None, "differences": [],
                "original": {"text": written, "tokens": [1] * 96, "log_prob": -41.2, "log_prob_with_change": -77.9},
                "what_if": {"text": other, "tokens": [1] * 96, "log_prob": -52.3, "log_prob_as_recorded": -90.5}}


class Jobs:
    def __init__(self, fake):
        self.fake, self.jobs, self.lock = fake, {}, threading.Lock()
        if fake.bank.rows:
            wordless = "text: expected at least one word, found none"
            for i, (state, message) in enumerate([("done", ""), ("failed", wordless), ("cancelled", "")]):
                self.jobs[f"old-{i}"] = self.job(f"old-{i}", f"{TOPICS[i]}", state, message)

    @staticmethod
    def job(name, source, state, message="", namespace="default", kind="lora"):
        return {"job": name, "state": state, "namespace": namespace, "id": f"{source}-{kind}", "version": 1,
                "source": source, "config": json.dumps({"kind": kind}), "origin": "client", "lease": 1, "expected": "",
                "failed": 0, "lost": 0, "created_unix_ms": NOW, "branch": False, "code": 0, "message": message}

    def learn(self, body):
        for name in body:
            if name not in ("text", "source", "namespace", "id", "config"):
                raise Refused(400, "invalid_argument", f"argument {name}: expected a known one", name)
        config = body.get("config", {})
        if config.get("rank", 1) > 256:
            raise Refused(400, "invalid_argument", f"config rank: expected 1 to 256, found {config['rank']}", "config")
        with self.lock:
            name = f"job-{len(self.jobs):04d}"
            job = self.job(name, body["source"], "leased", namespace=body.get("namespace", "default"),
                           kind=config.get("kind", "mlp"))
            if body.get("id"):
                job["id"] = body["id"]
            job["began"] = time.monotonic()
            self.jobs[name] = job
        return {"job": name}

    def now(self, job):
        """Its progress is a matter of time; the last look stores the memory."""
        with self.lock:
            if job["state"] == "leased" and "began" in job:
                share = (time.monotonic() - job["began"]) / self.fake.learn_seconds
                if share >= 1:
                    job["state"] = "done"
                    row = Bank.row(job["namespace"], job["id"], job["source"], json.loads(job["config"])["kind"], 0, 0,
                                   0.0, 2.7, 0.4, 0.98)
                    row["version"], row["created_unix_ms"] = 1, NOW
                    self.fake.bank.add(row)
                return min(share, 1)
            return 1

    def shown(self, job):
        self.now(job)
        return {k: v for k, v in job.items() if k != "began"}

    def find(self, name):
        if name not in self.jobs:
            raise Refused(404, "not_found", f"job {name}: expected one, found none")
        return self.jobs[name]

    def events(self, job):
        while True:
            share = self.now(job)
            if job["state"] == "done":
                yield {"type": "learned", "job": job["job"], "memory": f"{job['namespace']}/{job['id']}@1",
                       "stats": {"nll_before": 2.7, "nll_after": 0.4, "recall": 0.98, "steps": 32}, "branch": False}
                return
            if job["state"] in ("failed", "cancelled"):
                yield {"type": "error", "error": {"message": job["message"] or "cancelled", "code": job["state"]}}
                return
            yield {"type": "progress", "job": job["job"], "phase": "learning", "step": int(32 * share), "steps": 32,
                   "loss": round(2.7 * math.exp(-2 * share), 4), "recall": round(0.45 + 0.5 * share, 3)}
            time.sleep(0.1)


class Policy:
    def __init__(self, present):
        self.versions, self.runs, self.feedback, self.tables = [], {}, [], ["gains.safetensors"]
        if present:
            for i, origin in enumerate(["file", "online", "online"]):
                self.versions.append({"digest": sha(f"policy{i}"), "origin": origin, "number": i + 1,
                                      "update": 200 + 40 * i, "created_unix_ms": NOW - 7200000 * (3 - i)})
            self.runs["rloo-1"] = {"run": "rloo-1", "table": "gains.safetensors", "state": "done", "message": "",
                                   "update": 200, "started_unix_ms": NOW - 9000000, "policy": True}

    def load(self, origin="file"):
        n = len(self.versions)
        self.versions.append({"digest": sha(f"policy{n}"), "origin": origin, "number": n + 1, "update": 200,
                              "created_unix_ms": NOW})
        return {"policy": self.show()["policy"]}

    def unload(self):
        self.versions.append({"digest": "", "origin": "unload", "number": len(self.versions) + 1, "update": 0,
                              "created_unix_ms": NOW})
        return {"policy": None}

    def show(self):
        head = self.versions[-1] if self.versions and self.versions[-1]["digest"] else None
        policy = head and {"digest": head["digest"], "update": head["update"], "model": sha("model"), "layer": 22,
                           "window_tokens": 32, "candidates": 32, "swap_cost": 0.0, "generic_gain": 0.03,
                           "feature_version": 3, "key_dim": 64, "width": 576, "whitening": sha("w"),
                           "config_digest": sha("c"), "notes": {"table": "gains.safetensors"}}
        guard = {"acting": 0.61, "other": 0.58, "standard_error": 0.03, "steps": 900, "effective_steps": 610.0,
                 "unjudged": 0.12}
        learning = head and {"episodes": 412, "steps": 7123, "held_out": 41, "refused": 2, "updates": 88,
                             "snapshots": 5, "reverts": 1, "set_back": 0, "mean_reward": 0.61, "entropy": 0.42,
                             "queued": 0, "dropped": 0, "strange": 0, "guard": guard}
        return {"policy": policy, "number": head["number"] if head else 0, "learning": learning}

    def rows(self, run, update):
        rows = [{"type": "start", "seed": 1, "table": sha("t"), "options": {"baseline": "rloo", "updates": 200},
                 "references": {"oracle": 0.91, "lagged oracle": 0.62}}]
        for u in range(0, update + 1, 10):
            gain = 0.62 - 0.6 * math.exp(-u / 45) + 0.03 * (noise(run, u) - 0.5)
            rows.append({"type": "look", "update": u, "seconds": u / 2, "best": True, "return": 11 * gain,
                         "reward": 0.9 * gain - 0.02, "entropy": 1.9 * math.exp(-u / 90), "loss": 0.02,
                         "value_loss": 0.1, "gradient_norm": 0.4, "steps": 900,
                         "steps_per_second": 2000, "validation": self.figures(gain, run, u)})
        if update >= 200:
            rows.append({"type": "end", "ended": "updates", "best_update": 190, "best_gain": 0.6, "updates": 200,
                         "seconds": 100})
        return rows

    @staticmethod
    def figures(gain, *key):
        return {"mean_gain": gain, "ci95": [gain - 0.06, gain + 0.06], "regret": 0.91 - gain,
                "accuracy": max(0.05, 0.2 + 0.5 * gain), "abstention": 0.4 + 0.3 * noise(*key, "ab"),
                "swaps_per_100": 2 + 2 * noise(*key, "sw"), "covered_gain": gain * 1.3, "base_share": 0.3,
                "corpus_nll": 0.01 * (noise(*key, "c") - 0.3), "prose_nll": 0.01 * (noise(*key, "p") - 0.3)}

    def now(self):
        for run in self.runs.values():
            if run["state"] == "running":
                run["update"] = min(200, int((time.monotonic() - run["began"]) * 200))
                if run["update"] >= 200:
                    run.update(state="done", policy=True)
        return self.runs.values()

    def curves(self):
        live = [{"unix_ms": NOW - 60000 * (60 - i),
                 "mean_reward": 0.35 + 0.25 * (1 - math.exp(-i / 15)) + 0.05 * noise(i),
                 "entropy": 1.1 * math.exp(-i / 40), "episodes": 7 * i, "updates": i, "acting": 0.5 + 0.002 * i,
                 "other": 0.45 + 0.0025 * i} for i in range(60)] if self.versions else []
        return {"live": live, "runs": [{"run": r["run"], "rows": self.rows(r["run"], r["update"])} for r in self.now()]}

    def report(self):
        def selectors(shift, key):
            gains = {"policy": 0.60, "base": 0.0, "random": -0.21, "nearest": 0.55, "wise": 0.32, "audition": 0.41,
                     "lagged_oracle": 0.62, "oracle": 0.91}
            out = {}
            for name, gain in gains.items():
                gain = 0.0 if name == "base" else gain + shift * (1 if name == "policy" else 0.2)
                out[name] = {**self.figures(gain, key, name), "decision_us": 210}
                if name != "policy":
                    lead = 0.60 + shift - gain
                    out[name].update(policy_lead=lead, policy_lead_ci95=[lead - 0.05, lead + 0.05])
            return {"selectors": out, "streams": 24}
        return {**selectors(0, "r"), "table": sha("t"), "split": "test",
                "nearest": {"window_tokens": 32, "threshold": 0.28},
                "modes": {"activated": {"absent": "no measured schedules were given"}, "async": selectors(-0.08, "a")},
                "prompt": selectors(0.05, "p"), "continuation": selectors(-0.12, "c"), "control": selectors(-0.65, "x"),
                "covered": {"policy_lead_over_nearest": 0.04, "ci95": [-0.01, 0.09], "tie": False},
                "policy_seeds": [], "checkpoints": [], "seeds_meet_targets": False,
                "targets": [{"name": name, "figure": figure, "bound": bound, "at_least": least, "met": met}
                            for name, figure, bound, least, met in (
                                ("lead over nearest key", 0.05, 0.05, True, True),
                                ("harm to other prose", 0.012, 0.01, False, False))]}

    def train(self, body):
        if body.get("table") != "gains.safetensors":
            raise Refused(404, "not_found", f"table {body.get('table')}: expected one in the folder, found none",
                          "table")
        name = body.get("run") or f"run-{len(self.runs) + 1}"
        self.runs[name] = {"run": name, "table": body["table"], "state": "running", "message": "", "update": 0,
                           "started_unix_ms": NOW, "policy": False, "began": time.monotonic()}
        return {"run": name}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve("GET")

    def do_POST(self):
        self.serve("POST")

    def do_DELETE(self):
        self.serve("DELETE")

    def serve(self, method):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        parts = [urllib.parse.unquote(p) for p in path.strip("/").split("/")]
        query = dict(urllib.parse.parse_qsl(query))
        self.fake.asked.append((method, self.path))
        try:
            if path in ("/healthz", "/readyz"):
                return self.reply(200, {"ok": True})
            if parts[:2] != ["api", "v1"]:
                return self.static(path)
            self.allow(method)
            for (wanted, prefix), refused in list(self.fake.fail.items()):
                if wanted == method and path.startswith(prefix):
                    raise refused
            answer = self.route(method, parts[2:], query, body)
            if answer is not None:
                self.reply(200, answer)
        except Refused as error:
            self.reply(error.status, {"error": {"message": str(error), "type": "invalid_request_error",
                                                "param": error.param, "code": error.code}})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def allow(self, method):
        given = self.headers.get("Authorization", "")
        right = given == f"Bearer {self.fake.token}"
        if right:
            return
        if self.fake.all_need_token:
            raise Refused(401, "unauthorized", "token: expected one of --http-tokens, found " +
                          ("another" if given else "none"))
        if method != "GET" and self.headers.get("Origin"):
            raise Refused(403, "permission_denied", "a change from a browser: expected the browser token, found " +
                          ("another" if given else "none"))

    def head(self, status, kind, length=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def reply(self, status, answer):
        data = json.dumps(answer).encode()
        self.head(status, "application/json", len(data))
        self.wfile.write(data)

    def static(self, path):
        file = CHART if path == "/chart.js" else (WEB / (path.strip("/") or "index.html")).resolve()
        if not file.is_file() or (file != CHART and WEB not in file.parents):
            raise Refused(404, "not_found", f"{path}: expected a page, found none")
        data = file.read_bytes()
        self.head(200, TYPES.get(file.suffix, "application/octet-stream") + "; charset=utf-8", len(data))
        self.wfile.write(data)

    def stream(self, events):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            data = f": a comment\r\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
            middle = len(data) // 2  # cut anywhere, within a character too: as a network may
            for piece in (data[:middle], data[middle:]):
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def file(self, data, name):
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", f'attachment; filename="{name}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def route(self, method, parts, q, body):
        fake = self.fake
        what = (method, parts[0], *parts[1:2] * (parts[0] in ("policy",)))
        data = json.loads(body) if body and self.headers.get("Content-Type") == "application/json" else {}
        if what == ("GET", "session"):
            may_change = self.headers.get("Authorization") == f"Bearer {fake.token}"
            return {"namespaces": None, "may_change": may_change, "build": "fake", "traces": True,
                    "learning": fake.learning}
        if what == ("GET", "status"):
            return {"generators": fake.generators, "clients": 1, "sessions": 0, "payload_bytes": 5 << 30,
                    "disk_bytes": 6 << 30, "quota_bytes": 0, "memories": len(fake.bank.rows)}
        if parts[0] == "memories":
            return self.memories(method, parts[1:], q, body)
        if what == ("POST", "learn"):
            return fake.jobs.learn(data)
        if parts[0] == "jobs":
            return self.jobs(method, parts[1:], q)
        if what == ("POST", "generate"):
            return self.stream(fake.generate(data))
        if parts[0] == "traces":
            return self.traces(method, parts[1:], q, data)
        if parts[0] == "policy":
            if what == ("POST", "policy", "choices"):
                return fake.traces.choices(q["trace"], q.get("policy"), body)
            return self.policy(method, parts[1:], q, data)
        raise Refused(404, "not_found", f"{self.path}: expected a path of the interface, found none")

    def memories(self, method, parts, q, body):
        bank = self.fake.bank
        if not parts:
            time.sleep(self.fake.slow.get(q.get("q"), 0))
            return bank.list(q)
        if parts == ["import"]:
            if not body.startswith(b"MSE1"):
                raise Refused(400, "corruption", "import: expected the magic MSE1, found another")
            row = bank.row(q.get("namespace", "default"), q.get("id", "imported"), "imported", "lora", 0, 0, 0, 2, 1, 1)
            bank.add(row)
            return {"version": bank.version(row, 1)}
        row = bank.find(parts[0], parts[1])
        verb = (method, *parts[2:])
        if verb == ("GET",):
            return {"version": bank.version(row, int(q.get("version", row["version"]))), "branches": [],
                    "uses": row["uses"], "mean_net_gain": row["mean_net_gain"], "source_text": bank.source_text(row)}
        if verb == ("GET", "history"):
            return {"versions": [bank.version(row, n) for n in range(1 + int(q.get("after", 0)), row["version"] + 1)],
                    "next": 0}
        if verb == ("GET", "segments"):
            return bank.segments(row)
        if verb == ("GET", "map"):
            return bank.map(row, int(q.get("others", 500)))
        if verb == ("GET", "export"):
            return self.file(b"MSE1" + bytes(60), f"{row['id']}.msm")
        if verb == ("POST", "rollback"):
            row["version"] += 1
            bank.pages.clear()
            bank.rolled[(row["namespace"], row["id"], row["version"])] = json.loads(body)["to"]
            return {"version": bank.version(row, row["version"])}
        if verb == ("DELETE",):
            bank.remove(row)
            return {"erased": f"{row['namespace']}/{row['id']}"}
        raise Refused(404, "not_found", "expected a path of the interface")

    def jobs(self, method, parts, q):
        jobs = self.fake.jobs
        if not parts:
            rows = [jobs.shown(j) for j in reversed(jobs.jobs.values())]
            return {"jobs": [j for j in rows if q.get("state") in (None, "", j["state"])], "left_off": 0}
        job = jobs.find(parts[0])
        if parts[1:] == ["events"]:
            return self.stream(jobs.events(job))
        if (method, *parts[1:]) == ("POST", "cancel"):
            job["state"] = "cancelled"
        return {"job": jobs.shown(job)}

    def traces(self, method, parts, q, data):
        traces = self.fake.traces
        if not parts:
            return traces.list(q)
        verb = (method, *parts[1:])
        if verb == ("GET",):
            return traces.show(parts[0], q)
        if verb == ("GET", "check"):
            count = traces.find(parts[0])["count"]
            return {"decisions": count, "checked": count, "others": [], "unchecked": []}
        if verb == ("GET", "export"):
            traces.find(parts[0])
            return self.file(b"MSTRACE1", f"{parts[0]}.trace")
        if verb == ("POST", "replay"):
            return traces.replay(parts[0], data.get("what_if"))
        if verb == ("DELETE",):
            del traces.made[parts[0]]
            return {"erased": parts[0]}
        raise Refused(404, "not_found", "expected a path of the interface")

    def policy(self, method, parts, query, data):
        policy = self.fake.policy
        verb = (method, *parts)
        if verb == ("GET",):
            return policy.show()
        if verb == ("GET", "versions"):
            return {"policies": policy.versions}
        if verb == ("POST", "load"):
            return policy.load()
        if verb == ("POST", "unload"):
            return policy.unload()
        if verb == ("POST", "feedback"):
            policy.feedback.append(data)
            return {"session": data["session"], "value": data["value"], "steps": 8}
        if verb == ("GET", "curves"):
            return policy.curves()
        if verb == ("GET", "comparisons"):
            return {"comparisons": [{"name": "eval-2025-11", "report": policy.report()}] if policy.versions else []}
        if verb == ("GET", "training"):
            return {"folder": "/var/lib/memslot/training", "tables": policy.tables,
                    "runs": [{k: v for k, v in r.items() if k != "began"} for r in policy.now()]}
        if verb == ("POST", "training"):
            return policy.train(data)
        if verb == ("POST", "training", "tables"):
            policy.tables.append(query["name"])
            return {"name": query["name"]}
        if method == "POST" and parts[0] == "training" and parts[2] == "stop":
            policy.runs[parts[1]]["state"] = "stopped"
            return {"run": parts[1]}
        if method == "POST" and parts[0] == "training" and parts[2] == "load":
            return policy.load()
        raise Refused(404, "not_found", "expected a path of the interface")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *arguments):
        self.sockets = set()
        super().__init__(*arguments)

    def process_request(self, request, client_address):
        self.sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a browser may leave; the fake may not fail
            super().handle_error(request, client_address)


class FakeController:
    """One controller; start() and stop() may alternate, on the same port and with the same contents."""

    def __init__(self, memories=100000, traces=60, token="the-browser-token-of-the-fake", port=0):
        self.token, self.all_need_token, self.learning = token, False, True
        self.learn_seconds, self.step_seconds = 0.7, 0.03
        self.fail = {}   # (method, path prefix) -> Refused, until it is taken out
        self.slow = {}   # text searched for -> seconds
        self.asked = []  # (method, path), in order
        self.generators = [{"incarnation": "g1", "build": "fake", "model": sha("model"), "model_name": "SmolLM2-135M",
                            "layers": [22], "learn_workers": 1, "learning": 0, "sessions": 0}]
        self.bank, self.traces = Bank(memories), Traces(traces)
        self.jobs, self.policy = Jobs(self), Policy(bool(memories))
        self.port, self.server, self.left = port, None, threading.Event()

    def generate(self, body):
        if not body.get("prompt"):
            raise Refused(400, "invalid_argument", "prompt: expected a text, found none", "prompt")
        return self.written(body)

    def written(self, body):
        """The prompt "hostile" makes a text that would be markup; "break" ends the stream within a step."""
        name = f"{random.getrandbits(64):016x}"
        session, steps = int(name, 16), math.ceil(body.get("max_tokens", 128) / body.get("step_tokens", 16))
        made = []
        self.traces.add(name, body["prompt"], 0, NOW + len(self.traces.made), made=made)
        yield {"type": "start", "session": session, "prompt_tokens": 4, "policy": "learned:3f6a", "generator": "g1",
               "trace": name}
        try:
            for i in range(steps):
                time.sleep(self.step_seconds)
                step = self.next_step(body, name, i)
                made.append(step)
                self.traces.made[name]["count"] = len(made)
                live = {"type": "step", **step, **step["active"][0]}
                del live["active"], live["slot"]
                yield live
                if body["prompt"] == "break" and i == 2:
                    raise ConnectionResetError
        except GeneratorExit:
            self.left.set()  # the browser left: a controller cancels
            raise
        text = "".join(s["text"] for s in made)
        yield {"type": "done", "text": text, "tokens": sum(len(s["tokens"]) for s in made), "prompt_tokens": 4,
               "finish": "length", "decode_seconds": 1.9, "prefill_seconds": 0.1, "trace": name}

    def next_step(self, body, name, i):
        forced = body.get("memory", "auto")
        memory = Traces.NAMES[(i // 2) % len(Traces.NAMES)] if forced == "auto" else forced
        topic = next((t for t in SENTENCES if t in memory), "base")
        half = len(SENTENCES[topic]) // 2
        half = SENTENCES[topic].index(" ", half)
        text = " " + SENTENCES[topic][:half] if i % 2 == 0 else SENTENCES[topic][half:].rstrip()
        if body["prompt"] == "hostile":
            text = HOSTILE_TEXT
        return {"step": i, "active": [{"slot": 0, "memory": memory,
                                       "reason": "directive" if forced == "auto" else "pinned"}],
                "tokens": list(range(16)), "log_probs": [-0.4] * 16, "text": text, "entropy": 1.1 + noise(i),
                "surprise": 0.9 + noise(i, 1), "candidates": 7, "swap_us": 2100 if i % 2 == 0 else 0,
                "select_us": 240, "logits_xxh3": f"{i:016x}", "compute_us": 80000}

    def start(self):
        handler = type("BoundHandler", (Handler,), {"fake": self})
        self.server = Server(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        """Also ends connections that are open, as a process that dies does."""
        self.server.shutdown()
        self.server.server_close()
        for one in list(self.server.sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--port", type=int, default=7401)
    parser.add_argument("--token", default="the-browser-token-of-the-fake")
    parser.add_argument("--memories", type=int, default=100000)
    parser.add_argument("--traces", type=int, default=60)
    options = parser.parse_args()
    fake = FakeController(options.memories, options.traces, options.token, options.port)
    fake.learn_seconds, fake.step_seconds = 12, 0.2
    fake.start()
    print(f"ready {email.utils.formatdate()} {fake.url}#token={fake.token}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        fake.stop()


if __name__ == "__main__":
    main()
