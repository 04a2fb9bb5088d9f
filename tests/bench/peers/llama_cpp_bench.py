"""llama.cpp's speed on one file: prefill (logits of the last token only) and decode of one sequence.

    llama_cpp_bench.py MODEL [--threads N] [--prompt T] [--decode N] [--repeat R]

As gpt_bench does: the prompt is read into an empty cache, then tokens are written on top of it. The
next token is the best of the logits, so that decode includes reading them. Prints one JSON object;
rates are medians over the repetitions.
"""
import argparse
import json
import statistics
import time

import llama_cpp
import numpy as np


class Session:
    def __init__(self, path, threads, context, rows):
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), model)
        if not self.model:
            raise SystemExit(f"llama.cpp: cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, rows, rows
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(rows, 0, 1)
        self.length = 0

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.length = 0

    def feed(self, tokens):
        """Appends tokens; returns the logits of the last one."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, self.length + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i == len(tokens) - 1
        status = llama_cpp.llama_decode(self.context, batch)
        if status != 0:
            raise SystemExit(f"llama_decode: expected 0, found {status}")
        self.length += len(tokens)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), shape=(self.vocab,))


def run_once(session, prompt, count):
    """(prompt tokens per second, written tokens per second on top of it)."""
    session.clear()
    begin = time.perf_counter()
    token = int(session.feed(prompt).argmax())
    read = time.perf_counter()
    for _ in range(count):
        token = int(session.feed([token]).argmax())
    return len(prompt) / (read - begin), count / (time.perf_counter() - read)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    session = Session(args.model, args.threads, args.prompt + args.decode + 16, args.prompt)
    prompt = [(7919 * i + 13) % session.vocab for i in range(args.prompt)]

    run_once(session, prompt, 4)  # warm: pages, thread pool
    runs = [run_once(session, prompt, args.decode) for _ in range(args.repeat)]
    print(json.dumps({"program": f"llama.cpp (llama-cpp-python {llama_cpp.__version__})", "threads": args.threads,
                      "prompt": args.prompt, "decode": args.decode,
                      "prefill_tokens_per_s": statistics.median(run[0] for run in runs),
                      "decode_tokens_per_s": statistics.median(run[1] for run in runs)}))


if __name__ == "__main__":
    main()
