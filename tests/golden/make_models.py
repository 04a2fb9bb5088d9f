#!/usr/bin/env python3
"""Golden numbers of whole models: llama_tiny_theta*, gpt2_tiny (each with its *_hf folder) and
smollm2_text* (the default model on three texts).

    make_models.py OUT [--seed N] [--model GGUF] [--text FILE|DIR]
        seed 0 has the sizes of the committed set; every other seed draws its own. Without --model
        only the tiny ones. --text: a folder of texts, or WikiText (articles by their headings).
    make_models.py --check DIR [--model GGUF]      computes the fixtures in DIR again and compares

Run by transformers, tiny models in float64, the default model in float32 from the weights that
llama_from_gguf.py reads; ids of text by llama.cpp's tokenizer.
"""
import argparse
import glob
import json
import os
import re
import sys

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from golden_set import generators, load, save, worst

transformers.utils.logging.disable_progress_bar()

ADAM = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
ADAM_STEPS, TINY_GREEDY, TEXT_GREEDY = 8, 16, 32
REFERENCE = f"transformers {transformers.__version__}"


# ---- running a model --------------------------------------------------------------------------

class Parts:
    """Where the two families keep what is looked at."""

    def __init__(self, model):
        llama = hasattr(model, "model")
        body = model.model if llama else model.transformer
        self.blocks = body.layers if llama else body.h
        self.final_norm = body.norm if llama else body.ln_f
        self.mlp_norm = (lambda i: self.blocks[i].post_attention_layernorm) if llama else (lambda i: self.blocks[i].ln_2)
        self.trained = ("gate_proj.weight", "up_proj.weight", "down_proj.weight") if llama else (
            "c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")

    def mlp_parameters(self, layer):
        named = dict(self.blocks[layer].mlp.named_parameters())
        return {name: named[name] for name in self.trained}


def first(value):
    return (value[0] if isinstance(value, tuple) else value).detach()


def watched_forward(model, ids, layer):
    """logits and the hidden states that the fixtures hold; batch of one, squeezed out."""
    parts, seen, handles = Parts(model), {}, []

    def after(module, name):
        handles.append(module.register_forward_hook(lambda m, i, o: seen.__setitem__(name, first(o).squeeze(0))))

    def before(module, name):
        handles.append(module.register_forward_pre_hook(lambda m, i: seen.__setitem__(name, first(i).squeeze(0))))

    before(parts.blocks[0], "hidden_embed")
    for i, block in enumerate(parts.blocks):
        after(block, i)
    after(parts.final_norm, "hidden_final_norm")
    before(parts.mlp_norm(layer), f"layer{layer}_residual")
    before(parts.blocks[layer].mlp, f"layer{layer}_mlp_input")
    after(parts.blocks[layer].mlp, f"layer{layer}_mlp_output")
    with torch.no_grad():
        seen["logits"] = model(ids[None], use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    seen["hidden_after_layer"] = torch.stack([seen.pop(i) for i in range(len(parts.blocks))])
    return seen


def losses_of(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")


def greedy(model, ids, steps):
    """Ids, margins (best minus second) and best logits of a greedy continuation, with the KV cache."""
    chosen, margins, best, cache, new = [], [], [], None, ids[None]
    with torch.no_grad():
        for _ in range(steps):
            out = model(new, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            top = out.logits[0, -1].topk(2)
            chosen.append(top.indices[0])
            margins.append(top.values[0] - top.values[1])
            best.append(top.values[0])
            new = top.indices[:1][None]
    return torch.stack(chosen), torch.stack(margins), torch.stack(best)


def train_mlp(model, ids, layer):
    """(losses before each step and after the last, gradients of the first, parameters after the last)."""
    parameters = Parts(model).mlp_parameters(layer)
    model.requires_grad_(False)
    for value in parameters.values():
        value.requires_grad_()
    optimizer, losses, gradients = torch.optim.AdamW(parameters.values(), **ADAM), [], {}
    for step in range(ADAM_STEPS + 1):
        loss = losses_of(model(ids[None], use_cache=False).logits[0], ids).mean()
        losses.append(loss.detach())
        if step == ADAM_STEPS:
            break
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradients = {name: value.grad.clone() for name, value in parameters.items()}
        optimizer.step()
    return torch.stack(losses), gradients, {n: v.detach().clone() for n, v in parameters.items()}


# ---- tiny models ------------------------------------------------------------------------------

def compute_tiny(model, ids, layer):
    model = model.double().eval()
    out = watched_forward(model, ids, layer)
    out["nll"] = losses_of(out["logits"], ids)
    out["greedy_ids"], out["greedy_margin"], _ = greedy(model, ids, TINY_GREEDY)
    out["adam_losses"], gradients, after = train_mlp(model, ids, layer)
    out.update({f"grad.{n}": v for n, v in gradients.items()})
    out.update({f"after{ADAM_STEPS}.{n}": v for n, v in after.items()})
    return out


def randomise(model, rng):
    """Norms around 1 and biases around 0, so that none can be forgotten unnoticed."""
    for name, value in model.named_parameters():
        if "norm" in name or ".ln_" in name or name.endswith("bias"):
            weight = name.endswith("weight")
            value.data = torch.randn(value.shape, generator=rng) * (0.2 if weight else 0.1) + (1.0 if weight else 0.0)


def llama_sizes(sizes, seed):
    if seed == 0:
        return dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=160,
                    num_hidden_layers=4, vocab_size=256, tie_word_embeddings=True), 48
    group, kv_heads = sizes.randint(1, 3), sizes.randint(1, 3)
    heads = group * kv_heads
    return dict(hidden_size=heads * (sizes.randint(32, 96) // heads), num_attention_heads=heads,
                num_key_value_heads=kv_heads, head_dim=sizes.choice([8, 12, 16, 24]),
                intermediate_size=sizes.randint(70, 260), num_hidden_layers=sizes.randint(3, 6),
                vocab_size=sizes.randint(150, 400), tie_word_embeddings=sizes.random() < 0.5), sizes.randint(20, 90)


def draw_ids(rng, model, length):
    """Random ids whose greedy continuation has no near tie: float32 must choose the same tokens."""
    model = model.double().eval()
    while True:
        ids = torch.randint(0, model.config.vocab_size, (length,), generator=rng)
        if greedy(model, ids, TINY_GREEDY)[1].min() > 0.002:
            return ids


def write_folder(model, folder, legacy, shards):
    model.float().save_pretrained(folder, max_shard_size="200KB" if shards else "1GB")
    if not legacy:
        return
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        config = json.load(file)
    theta = config.pop("rope_parameters")["rope_theta"]
    config.pop("dtype")
    config.update(rope_theta=theta, rope_scaling=None, torch_dtype="float32", transformers_version="4.40.0")
    with open(path, "w") as file:
        json.dump(config, file, indent=2)


def write_tiny(out, name, model, length, rng, metadata, legacy=False, shards=False):
    layer, folder = 2, name + "_hf"
    randomise(model, rng)
    ids = draw_ids(rng, model, length)
    write_folder(model, os.path.join(out, folder), legacy, shards)
    metadata = {"T": length, "layer": layer, "model_folder": folder, "vocab": model.config.vocab_size,
                "formula": "loss = mean CE of T-1 next-token predictions", "reference": REFERENCE + ", float64",
                "adam": f"AdamW lr 1e-3 betas .9,.95 eps 1e-8 wd 0; adam_losses[i]=loss before step i, "
                        f"[{ADAM_STEPS}]=after {ADAM_STEPS} steps; trained tensors = all parameters of layer "
                        f"{layer}'s MLP (biases too for gpt2)", "tol_abs": 2e-4, "tol_rel": 2e-4, **metadata}
    save(out, name, {"ids": ids, **compute_tiny(model, ids, layer)}, metadata)


def make_llama(out, seed, place, theta, **form):
    sizes, rng = generators(1000 * seed + 100 + place)
    shape, length = llama_sizes(sizes, seed)
    torch.manual_seed(1000 * seed + 100 + place)
    model = LlamaForCausalLM(LlamaConfig(
        max_position_embeddings=128, rms_norm_eps=1e-5, initializer_range=0.12,
        bos_token_id=1, eos_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": float(theta)}, **shape))
    write_tiny(out, f"llama_tiny_theta{theta}", model, length, rng, {
        "hidden": shape["hidden_size"], "heads": shape["num_attention_heads"], "ffn": shape["intermediate_size"],
        "kv_heads": shape["num_key_value_heads"], "layers": shape["num_hidden_layers"], "rms_eps": 1e-5,
        "rope_theta": float(theta), "rope": "half-rotation (rotate_half), HF weight layout"}, **form)


def make_gpt2(out, seed):
    sizes, rng = generators(1000 * seed + 200)
    if seed == 0:
        shape, length = dict(n_embd=64, n_head=4, n_layer=4, vocab_size=256, n_inner=None), 40
    else:
        heads = sizes.randint(1, 6)
        shape = dict(n_head=heads, n_embd=heads * sizes.choice([8, 12, 20]), n_layer=sizes.randint(3, 6),
                     vocab_size=sizes.randint(150, 400), n_inner=sizes.choice([None, sizes.randint(70, 260)]))
        length = sizes.randint(20, 48)
    torch.manual_seed(1000 * seed + 200)
    model = GPT2LMHeadModel(GPT2Config(n_positions=64, initializer_range=0.12, attn_pdrop=0, embd_pdrop=0,
                                       resid_pdrop=0, bos_token_id=1, eos_token_id=2, **shape))
    write_tiny(out, "gpt2_tiny", model, length, rng, {
        "heads": shape["n_head"], "n_embd": shape["n_embd"], "layers": shape["n_layer"], "n_positions": 64,
        "ln_eps": 1e-5, "layout": "Conv1D weights [in,out]"})


def make_tiny(out, seed):
    sizes, _ = generators(1000 * seed)
    thetas = (10000, 100000) if seed == 0 else (10000, sizes.choice([25000, 100000, 500000]))
    make_llama(out, seed, 0, thetas[0])
    make_llama(out, seed, 1, thetas[1], legacy=True, shards=seed != 0)
    make_gpt2(out, seed)


# ---- the default model ------------------------------------------------------------------------

def tokenize(model_path, text):
    from llama_cpp import Llama
    vocabulary = Llama(model_path=model_path, vocab_only=True, verbose=False)
    return vocabulary.tokenize(text.encode(), add_bos=False, special=False)


def articles(path):
    if os.path.isdir(path):
        texts = []
        for name in sorted(glob.glob(os.path.join(path, "*.txt"))):
            with open(name) as file:
                texts.append(file.read())
        return texts
    with open(path) as file:
        parts = re.split(r"(?m)^ (?== [^=\n]+ = *$)", file.read())
    return [part for part in parts if len(part) > 2200]


def compute_text(model, ids, layer, positions):
    with torch.no_grad():
        logits = model(ids[None], use_cache=False).logits[0]
    top = logits[positions].topk(10)
    out = {"nll": losses_of(logits, ids), "top10_ids": top.indices, "top10_logits": top.values,
           "logits_last": logits[-1], "logits_mean": logits.mean(-1), "logits_lse": logits.logsumexp(-1)}
    out["greedy_ids"], out["greedy_margin"], out["greedy_logit"] = greedy(model, ids, TEXT_GREEDY)
    before = {n: v.detach().clone() for n, v in Parts(model).mlp_parameters(layer).items()}
    out["adam_losses"], gradients, _ = train_mlp(model, ids, layer)
    for name, value in Parts(model).mlp_parameters(layer).items():
        value.data.copy_(before[name])
    short = {name: gradients[f"{name}_proj.weight"] for name in ("gate", "up", "down")}
    out["grad_norms_gate_up_down"] = torch.stack([g.norm() for g in short.values()])
    out.update({f"grad_{name}_4x16": g[:4, :16] for name, g in short.items()})
    return out


def make_texts(out, seed, model_path, text_path):
    from llama_from_gguf import load_llama
    model, sizes = load_llama(model_path), generators(1000 * seed + 300)[0]
    found = articles(text_path)
    chosen = (0, 7, 21) if seed == 0 and len(found) > 21 else sizes.sample(range(len(found)), 3)
    for i, article in enumerate(chosen):
        text = found[article][:2200]
        length = 256 if seed == 0 else sizes.randint(100, 256)
        layer = 22 if seed == 0 else sizes.randint(16, 28)
        ids = torch.tensor(tokenize(model_path, text)[:length])
        positions = torch.tensor([0, 1, *sorted(sizes.sample(range(2, length - 1), 5)), length - 1])
        save(out, f"smollm2_text{i}", {"ids": ids, "top10_pos": positions, **compute_text(model, ids, layer, positions)}, {
            "article_index": article, "text": text, "text_source": os.path.basename(os.path.normpath(text_path)),
            "ids_are": f"first {length} of tokenizer(text, no special tokens)", "layer": layer,
            "rope_theta": int(model.config.rope_parameters["rope_theta"]), "rms_eps": model.config.rms_norm_eps,
            "reference": f"{REFERENCE} LlamaForCausalLM, {os.path.basename(model_path)} dequantized to float32 by the "
                         "gguf package, CPU; ids by llama.cpp",
            "formula": f"forward pass; adam: torch.optim.AdamW lr=1e-3 betas=(0.9,0.95) eps=1e-8 wd=0 on "
                       f"model.layers.{layer}.mlp.{{gate,up,down}}_proj.weight, loss = mean CE of {length - 1} "
                       f"next-token predictions of the {length} ids; adam_losses[i] = loss before step i "
                       f"(i=0..{ADAM_STEPS - 1}), adam_losses[{ADAM_STEPS}] = after step {ADAM_STEPS}",
            "tol_abs": 2e-3, "tol_rel": 1e-4})


# ---- checking an existing set -----------------------------------------------------------------

def compare(name, got, want, metadata):
    """Ids exactly (text ids as far as no margin is under 0.01), after8.* within 1e-4, the rest as metadata says."""
    bad, largest = [], 0.0
    margins = want["greedy_margin"]
    sure = int((margins < 0.01).int().argmax()) if (margins < 0.01).any() else len(margins)
    for key, value in want.items():
        if key in ("ids", "top10_pos"):
            continue
        mine = got.get(key)
        if mine is None or mine.shape != value.shape:
            bad.append(f"{key}: expected shape {list(value.shape)}")
        elif key.startswith("greedy_") and name.startswith("smollm2"):
            bad += [] if worst(mine[:sure], value[:sure], 5e-3, 1e-4)[0] <= 1 else [key]
        elif value.dtype == torch.int64:
            bad += [] if torch.equal(mine, value) else [key]
        else:
            loose = max(metadata["tol_abs"], 1e-4) if key.startswith("after") else metadata["tol_abs"]
            share, difference = worst(mine, value, loose, metadata["tol_rel"])
            largest = max(largest, difference)
            bad += [] if share <= 1 else [f"{key}: off by {difference:.2e}"]
    print(f"{name}: largest difference {largest:.1e}" + "".join("\n  " + line for line in bad), flush=True)
    return bad


def check_set(folder, model_path):
    failed = count = 0
    for path in sorted(glob.glob(os.path.join(folder, "*_tiny*.safetensors"))):
        want, metadata = load(path)
        kind = GPT2LMHeadModel if "gpt2" in path else LlamaForCausalLM
        model = kind.from_pretrained(os.path.join(folder, metadata["model_folder"]))
        got = compute_tiny(model, want["ids"], metadata["layer"])
        failed += bool(compare(os.path.basename(path), got, want, metadata))
        count += 1
    texts = sorted(glob.glob(os.path.join(folder, "smollm2_text*.safetensors"))) if model_path else []
    if texts:
        from llama_from_gguf import load_llama
        model = load_llama(model_path)
    for path in texts:
        want, metadata = load(path)
        same = tokenize(model_path, metadata["text"])[:len(want["ids"])] == want["ids"].tolist()
        got = compute_text(model, want["ids"], metadata["layer"], want["top10_pos"])
        failed += bool(compare(os.path.basename(path), got, want, metadata)) or not same
        count += 1
    print(f"{count - failed} passed, {failed} failed")
    return 1 if failed or not count else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model")
    parser.add_argument("--text", default=os.path.join(os.path.dirname(__file__), "../../samples/prose"))
    parser.add_argument("--check", metavar="DIR")
    args = parser.parse_args()
    if (args.out is None) == (args.check is None):
        parser.error("expected either OUT or --check DIR")
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    if args.check:
        sys.exit(check_set(args.check, args.model))
    os.makedirs(args.out, exist_ok=True)
    make_tiny(args.out, args.seed)
    if args.model:
        make_texts(args.out, args.seed, args.model, args.text)


if __name__ == "__main__":
    main()
