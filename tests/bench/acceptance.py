#!/usr/bin/env python3
"""Runs what measures, and holds every figure against its target.

    tests/bench/acceptance.py [--sections exactness,selection,pair,learning,gains,peers] [--build DIR]
                              [--model GGUF] [--text FILE] [--rounds N] [--wait S] [--json FILE]

    exactness   NLL of real text in bf16 against f32 (memslot_wikitext_nll; needs --text, WikiText-2's
                validation text: without it the section is not measured, and that is said)
    selection   the round trip from observation to directive (select_bench)
    pair        the two real processes: activation of a resident memory against a token, recompute,
                decoding beside learning against decoding alone, and where the generator's memory goes
    learning    one recipe for all sample sources, both kinds, both layouts (recipe_report)
    gains       64 memories scored on one text: share of the bf16 peak (gains_bench)
    peers       decode, prefill, a learning step and 64 scored memories beside llama.cpp and PyTorch
                (peers.py)

The programs come from DIR (default $MEMSLOT_BUILD or build/release), configured with
-DMEMSLOT_BENCH=ON. Exit code: 0 every target of the sections is met, 1 one is missed or not measured:
what cannot be measured here is left out by --sections.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from peers import MODEL_FILE, cache_dir

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECTIONS = ("exactness", "selection", "pair", "learning", "gains", "peers")
MIB = 1 << 20


class NotMeasured(Exception):
    """What a section needs is not there."""


class Report:
    """Rows of (section, what, figure, target, met); met None: only reported."""

    def __init__(self):
        self.rows, self.figures, self.missing = [], {}, []

    def not_measured(self, section, why):
        self.missing.append({"section": section, "why": why})
        print(f"NOT MEASURED {section}: {why}", flush=True)

    def add(self, section, what, figure, target="reported", met=None):
        self.rows.append({"section": section, "what": what, "figure": figure, "target": target, "met": met})
        verdict = {None: "", True: "met", False: "NOT MET"}[met]
        print(f"{section:<10} {what:<58} {figure:<34} {target:<12} {verdict}", flush=True)

    def good(self):
        return not self.missing and all(row["met"] is not False for row in self.rows)


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True, check=False, **more)
    if done.returncode not in (0, 1):  # 1: measured, and beyond its budget
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return done


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def exactness(args, report):
    if not args.text or not os.path.isfile(args.text):
        raise NotMeasured(f"expected WikiText-2's validation text by --text, found {args.text or 'none'}")
    found = json_lines(run(args.bin / "memslot_wikitext_nll", "--model", args.model, "--text", args.text).stdout)[-1]
    report.figures["exactness"] = found
    difference = found["relative_difference"]
    report.add("exactness", "mean NLL, bf16 against f32 weights",
               f"{found['nll_bf16']:.5f} / {found['nll_f32']:.5f}: {100 * difference:.3f} %", "<= 0.5 %",
               difference <= 0.005)


def selection(args, report):
    found = json_lines(run(args.bin / "select_bench").stdout)[-1]
    report.figures["selection"] = found
    median = found["round_trip_p50_us"]
    report.add("selection", f"round trip, {found['memories']} memories, ipc, resident",
               f"{median:.0f} us (p99 {found['round_trip_p99_us']:.0f} us)", "< 250 us", median < 250)


class Pair:
    """A controller and a generator with the default settings, in a folder of their own."""

    def __init__(self, args):
        self.folder = tempfile.TemporaryDirectory(prefix="memslot-acceptance-")
        self.endpoint = f"ipc://{self.folder.name}/link"
        self.bin, self.processes = args.bin, []
        self.start("memslot-controller", "--bank", f"{self.folder.name}/bank", "--endpoint", self.endpoint)
        self.start("memslot-generator", "--model", args.model, "--endpoint", self.endpoint)
        end = time.monotonic() + 60  # its link comes up on its own
        while subprocess.run(self.command("status"), capture_output=True, check=False).returncode != 0:
            if time.monotonic() > end:
                raise RuntimeError("the controller knows no generator")
            time.sleep(0.05)

    def start(self, program, *arguments):
        log = open(f"{self.folder.name}/{program}.log", "w+", encoding="utf-8")
        self.processes.append(subprocess.Popen([self.bin / program, *map(str, arguments)], stdout=log, stderr=log))
        end = time.monotonic() + 120
        while " ready " not in pathlib.Path(log.name).read_text(encoding="utf-8"):
            if self.processes[-1].poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{program} is not ready: {pathlib.Path(log.name).read_text()[-500:]}")
            time.sleep(0.05)

    def command(self, *arguments):
        return [str(self.bin / "memslot"), "--endpoint", self.endpoint, "--json", *map(str, arguments)]

    def ask(self, *arguments):
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{arguments}: exit code {done.returncode}: {done.stderr}")
        return json_lines(done.stdout)[-1]

    def bench(self, what, *more):
        return self.ask("bench", what, *more)["bench"][0]

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait(60)
        self.folder.cleanup()


def decode_beside_learning(pair, source, number):
    """Tokens per second: alone, while a source is learned."""
    def rate():
        return pair.bench("decode", "--repeats", 3)["tokens_per_second"]

    alone = rate()
    learning = subprocess.Popen(pair.command("learn", source, "--id", f"beside-{number}"),
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(2)  # the job is assigned and its slot inputs are being made
    beside = rate()
    if learning.poll() is not None:
        raise RuntimeError("learning ended before decoding beside it was measured")
    learning.terminate()
    learning.wait()
    for job in pair.ask("jobs", "ls", "--state", "leased")["jobs"]:
        pair.ask("jobs", "cancel", job["job"])
    # Its generator hears of it a little later, and what a running job takes is not in its counters yet.
    while pair.ask("status")["generator"]["learning"]["queued"]:
        time.sleep(0.1)
    return alone, beside


def pair(args, report):
    sources = sorted((ROOT / "samples" / "sources").glob("*.txt"))
    both = Pair(args)
    try:
        before = both.ask("status")
        both.ask("learn", sources[0], "--id", "first")
        swap = both.bench("swap", "-m", "first")
        report.add("pair", "activating a resident memory, of one token's time",
                   f"{swap['activate_us']:.2f} us of {swap['token_us']:.0f} us: {100 * swap['share_of_token']:.3f} %",
                   "< 1 %", swap["share_of_token"] < 0.01)
        recompute = both.bench("recompute", "-m", "first")
        report.add("pair", "recompute after a swap, per 1,000 tokens", f"{recompute['ms_per_1000_tokens']:.0f} ms")
        rounds = [decode_beside_learning(both, sources[1 + i % 7], i) for i in range(args.rounds)]
        share = statistics.median(beside / alone for alone, beside in rounds)
        report.add("pair", "decoding beside learning, of decoding alone",
                   ", ".join(f"{b:.0f}/{a:.0f}" for a, b in rounds) + f" tok/s: {share:.2f}", ">= 0.80", share >= 0.8)
        after = both.ask("status")
        report.figures["pair"] = {"swap": swap, "recompute": recompute, "rounds": rounds, "before": before,
                                  "after": after}
        add_memory(report, after)
    finally:
        both.close()


def add_memory(report, status):
    memory = status["generator"]["memory"]
    parts = ("kv", "resident", "learning_workspace")
    rest = memory["rss"] - sum(memory[p] for p in parts)
    ratio = rest / memory["weights"]
    detail = ", ".join(f"{name} {memory[name] / MIB:.0f}" for name in ("rss", "weights", *parts))
    report.add("pair", "RSS without KV, residents, learning, of the weights", f"{ratio:.2f}", "<= 1.3", ratio <= 1.3)
    report.add("pair", "parts of the generator's memory", f"{detail} MiB")


def learning(args, report):
    lines = []
    for kind in ("mlp", "lora"):
        found = run(args.bin / "recipe_report", args.model, ROOT / "samples", "--control", "test", "--kinds", kind,
                    "--layouts", "cumulative,overlap", "--json")
        print(found.stdout.split("{", 1)[0].rstrip(), flush=True)
        lines += json_lines(found.stdout)
        if kind == "lora":
            without = next(l for l in found.stdout.splitlines() if l.startswith("cloze without"))
            report.add("learning", "cloze prompts answered without a memory", without.split(":")[1].strip(), "near zero",
                       float(without.split(":")[1].strip(" %")) <= 5)
    report.figures["learning"] = lines
    for kind, bound in (("mlp", 0.95), ("lora", 0.80)):
        for layout in ("cumulative", "overlap"):
            of = [l for l in lines if l["kind"] == kind and l["layout"] == layout]
            recall, control = [l["recall"] for l in of], [l["control_change"] for l in of]
            judged = layout == "cumulative"  # the default; the other one is reported beside it
            mean = statistics.mean
            report.add("learning", f"{kind} {layout}: recall, mean (least)",
                       f"{100 * mean(recall):.1f} % ({100 * min(recall):.1f} %)", f">= {bound:.0%}",
                       min(recall) >= bound if judged else None)
            report.add("learning", f"{kind} {layout}: control NLL, mean (most)",
                       f"{100 * mean(control):+.2f} % ({100 * max(control):+.2f} %)", "<= +2 %",
                       max(control) <= 0.02 if judged else None)
            answered = mean(l["cloze"] for l in of)
            report.add("learning", f"{kind} {layout}: cloze prompts answered", f"{100 * answered:.0f} %", "aim: 80 %")
            report.add("learning", f"{kind} {layout}: time per source", f"{mean(l['seconds'] for l in of):.1f} s")


def gains(args, report):
    """What is measured beside PyTorch is in the section peers."""
    found = json_lines(run(args.bin / "gains_bench", args.model, "--threads", "2").stdout)[-1]
    report.figures["gains"] = found
    share = found["gains_share_of_peak"]
    report.add("gains", "64 lora candidates on 384 tokens: share of the bf16 peak",
               f"{share:.1%} of {found['bf16_peak_gflops']:.0f} GFLOP/s", ">= 55 %", share >= 0.55)
    report.add("gains", "64 lora candidates on 384 tokens: time", f"{found['gains_ms'] / 1e3:.2f} s")
    report.add("gains", "tokens scored a second, all candidates", f"{found['gains_tokens_per_s']:.0f}")
    report.add("gains", "workspace", f"{found['workspace_mb']:.0f} MB")


def peers(args, report):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = run(sys.executable, HERE / "peers.py", "--build", args.bin.parent, "--model", args.model, "--wait",
                   args.wait, "--rounds", args.rounds, "--json", file.name, "--check")
        print(done.stdout, flush=True)
        found = json.load(file)
    report.figures["peers"] = found
    for row in found["targets"]:
        ratio = "not measured" if row["ratio"] is None else f"{row['ratio']:.3f}"
        noise = "" if found["quiet"] else f" (load {found['load_before']:.1f}: no evidence)"
        report.add("peers", f"{row['metric']} / {row['peer']}", ratio + noise, row["bound"],
                   row["met"] and found["quiet"])


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--build", default=os.environ.get("MEMSLOT_BUILD") or str(ROOT / "build" / "release"))
    parser.add_argument("--model", default=os.environ.get("MEMSLOT_MODEL") or os.path.join(
        cache_dir(), MODEL_FILE))
    parser.add_argument("--text", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait", type=float, default=300, metavar="SECONDS", help="for a quiet machine, before peers")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    args.sections, args.bin = args.sections.split(","), pathlib.Path(args.build).resolve() / "bin"
    unknown = set(args.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"--sections: expected some of {', '.join(SECTIONS)}, found {', '.join(sorted(unknown))}")
    return args


def main():
    args, report = parse_arguments(), Report()
    for section in args.sections:
        try:
            globals()[section](args, report)
        except NotMeasured as error:
            report.not_measured(section, str(error))
        except (RuntimeError, OSError, KeyError, IndexError) as error:
            report.not_measured(section, f"{type(error).__name__}: {error}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"rows": report.rows, "figures": report.figures, "missing": report.missing}, file, indent=1)
    missed = sum(row["met"] is False for row in report.rows)
    print(f"{sum(row['met'] is True for row in report.rows)} targets met, {missed} missed; "
          f"sections not measured: {', '.join(row['section'] for row in report.missing) or 'none'}")
    return 0 if report.good() else 1


if __name__ == "__main__":
    sys.exit(main())
