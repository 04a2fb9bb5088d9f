"""PyTorch's time for one learning step: the full MLP of one layer on T tokens, AdamW.

    pytorch_learn_bench.py GGUF [--dtype bf16|f32] [--threads N] [--layer L] [--tokens T] [--steps N]

The layers below never change, so the residual stream and the normed input of the slot are computed
once; a step is forward from the slot up, mean loss over the T - 1 next tokens, backward down to the
slot, AdamW on its three matrices. In bf16 everything is bf16, the optimizer's state included (the
fastest that PyTorch offers; ours keeps f32 masters). Prints one JSON object.
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


class AboveSlot(nn.Module):
    """h + mlp(norm h) at the slot's layer, then the layers above it, the final norm and the output."""

    def __init__(self, model, layer):
        super().__init__()
        self.mlp = model.model.layers[layer].mlp
        model.model.layers = model.model.layers[layer + 1:]
        for place, block in enumerate(model.model.layers):
            block.self_attn.layer_idx = place
        self.upper = model

    def forward(self, residual, normed):
        hidden = residual + self.mlp(normed)
        return self.upper(inputs_embeds=hidden[None], use_cache=False).logits[0]


def slot_inputs(model, ids, layer):
    """(residual stream before the MLP's norm, the MLP's input), each (T, D)."""
    seen = {}
    block = model.model.layers[layer]
    handles = [block.post_attention_layernorm.register_forward_pre_hook(lambda m, i: seen.__setitem__("residual", i[0])),
               block.mlp.register_forward_pre_hook(lambda m, i: seen.__setitem__("normed", i[0]))]
    with torch.no_grad():
        logits = model(ids[None], use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return seen["residual"][0], seen["normed"][0], logits


def loss_of(logits, ids):
    return nn.functional.cross_entropy(logits[:-1].float(), ids[1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layer", type=int, default=22)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model = load_llama(args.model)
    if args.dtype == "bf16":
        model = model.bfloat16()
    ids = torch.tensor([(7919 * i + 13) % model.config.vocab_size for i in range(args.tokens)])
    residual, normed, whole = slot_inputs(model, ids, args.layer)
    above = AboveSlot(model, args.layer)
    with torch.no_grad():  # the part must be the whole: the same logits
        error = (above(residual, normed) - whole).abs().max().item()
    if error > (0.5 if args.dtype == "bf16" else 1e-3):
        sys.exit(f"the model cut at layer {args.layer} gives other logits than the whole: off by {error}")

    above.mlp.requires_grad_(True)
    optimizer = torch.optim.AdamW(above.mlp.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    times, losses = [], []
    for _ in range(args.steps + 1):
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(above(residual, normed), ids)
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - begin)
        losses.append(loss.item())
    print(json.dumps({"program": f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {args.dtype}",
                      "threads": args.threads, "tokens": args.tokens, "layer": args.layer,
                      "step_ms": 1e3 * statistics.median(times[1:]), "losses": losses}))


if __name__ == "__main__":
    main()
