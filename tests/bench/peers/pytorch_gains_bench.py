"""PyTorch's time for the gain table's inner work: one text scored with many lora memories.

    pytorch_gains_bench.py GGUF [--dtype bf16|f32] [--threads N] [--layer L] [--tokens T]
                           [--candidates K] [--repeats N]

As ours does it: the slot's input and the residual stream are computed once and cached; candidates go
through the slot each with its own corrections (the base maps of the slot's input once for all), then
several together through the layers above, and the loss and entropy of every token are taken in blocks,
so that no (rows, V) logits exist as a whole. What of it is fastest is tried first: how many candidates
at once, and how many rows of logits. Prints one JSON object.
"""
import argparse
import json
import os
import statistics
import sys
import time

import torch
import transformers
from torch import nn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../golden"))
from llama_from_gguf import load_llama  # noqa: E402

RANK = 16


def slot_inputs(model, ids, layer):
    """(residual stream before the MLP's norm, the MLP's input), each (T, D)."""
    seen = {}
    block = model.model.layers[layer]
    handles = [block.post_attention_layernorm.register_forward_pre_hook(lambda m, i: seen.__setitem__("residual", i[0])),
               block.mlp.register_forward_pre_hook(lambda m, i: seen.__setitem__("normed", i[0]))]
    logits = model(ids[None], use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return seen["residual"][0], seen["normed"][0], logits


def make_memories(mlp, count, dtype):
    """{map: (A (K, r, in), B (K, out, r))} of random corrections; candidate 0 is base."""
    torch.manual_seed(1)
    d, f = mlp.gate_proj.in_features, mlp.gate_proj.out_features
    memories = {}
    for name, (inputs, outputs) in {"gate": (d, f), "up": (d, f), "down": (f, d)}.items():
        a, b = 0.04 * torch.randn(count, RANK, inputs), 0.01 * torch.randn(count, outputs, RANK)
        b[0] = 0
        memories[name] = (a.to(dtype), b.to(dtype))
    return memories


class Scorer:
    def __init__(self, model, layer, residual, normed, targets):
        self.mlp, self.targets = model.model.layers[layer].mlp, targets
        self.residual, self.normed = residual, normed
        model.model.layers = model.model.layers[layer + 1:]
        for place, block in enumerate(model.model.layers):
            block.self_attn.layer_idx = place
        self.upper, self.output = model.model, model.lm_head.weight
        self.gate, self.up = self.mlp.gate_proj(normed), self.mlp.up_proj(normed)

    def slot(self, memories, part):
        """(K, T, D): the slot's output with each memory of the part."""
        def low(name, x):
            a, b = (m[part] for m in memories[name])
            return torch.bmm(x.matmul(a.transpose(1, 2)) if x.dim() == 2 else torch.bmm(x, a.transpose(1, 2)),
                             b.transpose(1, 2))
        h = nn.functional.silu(self.gate + low("gate", self.normed)) * (self.up + low("up", self.normed))
        return self.mlp.down_proj(h) + low("down", h)

    def losses(self, hidden, rows):
        """Mean loss and entropy of each reading, by blocks of rows."""
        count = hidden.shape[0]
        flat, targets = hidden.reshape(-1, hidden.shape[-1]), self.targets.repeat(count)
        nll, entropy = [], []
        for at in range(0, len(flat), rows):
            logits = (flat[at:at + rows] @ self.output.T).float()
            log_p = torch.log_softmax(logits, -1)
            nll.append(-log_p.gather(1, targets[at:at + rows, None])[:, 0])
            entropy.append(-(log_p.exp() * log_p).sum(-1))
        return torch.cat(nll).view(count, -1), torch.cat(entropy).view(count, -1)

    def score(self, memories, batch, rows):
        out = []
        for at in range(0, len(memories["up"][0]), batch):
            y = self.slot(memories, slice(at, at + batch))
            hidden = self.upper(inputs_embeds=self.residual + y, use_cache=False).last_hidden_state
            out.append(self.losses(hidden, rows)[0])
        return torch.cat(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layer", type=int, default=22)
    parser.add_argument("--tokens", type=int, default=384)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)

    model = load_llama(args.model)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model = model.to(dtype)
    ids = torch.tensor([(7919 * i + 13) % model.config.vocab_size for i in range(args.tokens + 1)])
    residual, normed, logits = slot_inputs(model, ids[:-1], args.layer)
    want = nn.functional.cross_entropy(logits.float(), ids[1:])
    scorer = Scorer(model, args.layer, residual, normed, ids[1:])
    memories = make_memories(scorer.mlp, args.candidates, dtype)
    few = {name: (a[:8], b[:8]) for name, (a, b) in memories.items()}
    got = scorer.score(few, 4, 256)[0].mean()  # the part must be the whole: candidate 0 is base
    if abs(got - want) > (0.05 if args.dtype == "bf16" else 1e-4):
        sys.exit(f"the model cut at layer {args.layer} gives the loss {got}, the whole {want}")

    def seconds(which, batch, rows):
        begin = time.perf_counter()
        scorer.score(which, batch, rows)
        return time.perf_counter() - begin

    tried = {(batch, rows): seconds(few, batch, rows) for batch in (2, 4, 8) for rows in (64, 256, 1024)}
    batch, rows = min(tried, key=tried.get)
    times = [seconds(memories, batch, rows) for _ in range(args.repeats)]
    median = statistics.median(times)
    print(json.dumps({"program": f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {args.dtype}",
                      "threads": args.threads, "tokens": args.tokens, "layer": args.layer,
                      "candidates": args.candidates, "batch": batch, "head_rows": rows, "gains_ms": 1e3 * median,
                      "gains_tokens_per_s": args.candidates * args.tokens / median}))


if __name__ == "__main__":
    main()
