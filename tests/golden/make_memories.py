#!/usr/bin/env python3
"""Golden numbers of the memory kinds: mlp_swiglu, mlp_gelu, lora, delta_rule*, delta_rule_layer*.

    make_memories.py OUT [--seed N]     writes a set; seed 0 has the sizes of the committed set,
                                        every other seed draws its own
    make_memories.py --check DIR        computes the fixtures in DIR again and compares

Everything is written here from the equations (docs/architecture.md names them), in float64 PyTorch
and by autograd; nothing is shared with the C++.
"""
import argparse
import os
import sys

import torch
from torch.nn import functional as F

from golden_set import check, generators, normal, save, uniform


# ---- MLPs -------------------------------------------------------------------------------------

def swiglu(w, x):
    return (F.silu(x @ w["gate_proj"].T) * (x @ w["up_proj"].T)) @ w["down_proj"].T


def gelu_mlp(w, x):
    hidden = F.gelu(x @ w["c_fc.weight"] + w["c_fc.bias"], approximate="tanh")
    return hidden @ w["c_proj.weight"] + w["c_proj.bias"]


def with_gradients(forward, trained, x, upstream):
    """y, and the gradients of sum(y * upstream) by `trained` and by x."""
    leaves = {k: v.clone().requires_grad_() for k, v in trained.items()}
    x = x.clone().requires_grad_()
    y = forward(leaves, x)
    (y * upstream).sum().backward()
    out = {"y": y, "grad_x": x.grad}
    out.update({f"grad.{k}": v.grad for k, v in leaves.items()})
    return out


def mlp_sizes(sizes, seed):
    if seed == 0:
        return 9, 32, 80
    return sizes.randint(2, 40), 8 * sizes.randint(2, 9), sizes.randint(17, 150)


def projections(rng, d, d_ff):
    return {"w.gate_proj.weight": normal(rng, d_ff, d, std=d ** -0.5),
            "w.up_proj.weight": normal(rng, d_ff, d, std=d ** -0.5),
            "w.down_proj.weight": normal(rng, d, d_ff, std=d_ff ** -0.5)}


MLP_TOLERANCE = {"tol_abs": 1e-5, "tol_rel": 1e-4}


def draw_mlp_swiglu(rng, sizes, seed):
    t, d, d_ff = mlp_sizes(sizes, seed)
    inputs = projections(rng, d, d_ff)
    inputs.update(x=normal(rng, t, d), upstream=normal(rng, t, d))
    return inputs, {"T": t, "d": d, "d_ff": d_ff, "layout": "weights [out,in]", "section": "1/C10 base",
                    "formula": "down(silu(gate x)*up x)", "reference": "plain torch, float64", **MLP_TOLERANCE}


def compute_mlp_swiglu(inputs, _):
    trained = {k[2:]: v for k, v in inputs.items() if k.startswith("w.")}
    return with_gradients(lambda w, x: swiglu({k[:-7]: v for k, v in w.items()}, x), trained,
                          inputs["x"], inputs["upstream"])


def draw_mlp_gelu(rng, sizes, seed):
    t, d, d_ff = mlp_sizes(sizes, seed)
    inputs = {"w.c_fc.weight": normal(rng, d, d_ff, std=d ** -0.5), "w.c_fc.bias": normal(rng, d_ff, std=0.1),
              "w.c_proj.weight": normal(rng, d_ff, d, std=d_ff ** -0.5), "w.c_proj.bias": normal(rng, d, std=0.1),
              "x": normal(rng, t, d, std=1.5), "upstream": normal(rng, t, d)}
    return inputs, {"T": t, "d": d, "d_ff": d_ff, "layout": "Conv1D weights [in,out]", "section": "GPT-2 MLP",
                    "formula": "c_proj(gelu_new(c_fc x)), gelu_new=0.5x(1+tanh(sqrt(2/pi)(x+0.044715x^3)))",
                    "reference": "plain torch, float64", **MLP_TOLERANCE}


def compute_mlp_gelu(inputs, _):
    trained = {k[2:]: v for k, v in inputs.items() if k.startswith("w.")}
    return with_gradients(gelu_mlp, trained, inputs["x"], inputs["upstream"])


NAMES = ("gate_proj", "up_proj", "down_proj")


def draw_lora(rng, sizes, seed):
    t, d, d_ff = mlp_sizes(sizes, seed)
    # alpha / rank stays at most 4: beyond, float32 gradients no longer fit the tolerance of the form.
    rank = 4 if seed == 0 else sizes.randint(1, 9)
    alpha = 16 if seed == 0 else rank * sizes.choice([1, 2, 4])
    inputs = projections(rng, d, d_ff)
    inputs.update(x=normal(rng, t, d), upstream=normal(rng, t, d))
    for name in NAMES:
        outputs, width = inputs[f"w.{name}.weight"].shape
        inputs[f"w.{name}.lora_A"] = uniform(rng, rank, width, low=-width ** -0.5, high=width ** -0.5)
        inputs[f"w.{name}.lora_B"] = normal(rng, outputs, rank, std=0.2)
    return inputs, {"T": t, "d": d, "d_ff": d_ff, "r": rank, "lora_alpha": alpha, "scaling": alpha / rank,
                    "layout": "A[r,in], B[out,r]", "section": "C10", "formula": "W x + (alpha/r) B(A x)",
                    "reference": "plain torch, float64", **MLP_TOLERANCE}


def compute_lora(inputs, metadata):
    scale = metadata["lora_alpha"] / metadata["r"]
    base = {n: inputs[f"w.{n}.weight"] for n in NAMES}

    def merged(w):
        return {n: base[n] + scale * w[f"{n}.lora_B"] @ w[f"{n}.lora_A"] for n in NAMES}

    def apart(w, x):  # W x + s B (A x), the form that a slot computes
        def linear(n, v):
            return v @ base[n].T + scale * (v @ w[f"{n}.lora_A"].T) @ w[f"{n}.lora_B"].T
        return linear("down_proj", F.silu(linear("gate_proj", x)) * linear("up_proj", x))

    trained = {k[2:]: v for k, v in inputs.items() if "lora_" in k}
    out = with_gradients(apart, trained, inputs["x"], inputs["upstream"])
    whole = merged(trained)
    out.update({f"merged.{n}.weight": whole[n] for n in NAMES})
    out.update(y_base=swiglu(base, inputs["x"]), y_merged=swiglu(whole, inputs["x"]))
    return out


# ---- delta rule -------------------------------------------------------------------------------

def l2(x, eps):
    return x / (x.square().sum(-1, keepdim=True) + eps).sqrt()


def delta_recurrent(q, k, v, beta, state):
    """(T, H, .) each; S [H, K, V]. u = beta (v - S^T k); S += k u^T; o = S^T (q / sqrt K)."""
    out, states = [], []
    for t in range(q.shape[0]):
        u = beta[t, :, None] * (v[t] - torch.einsum("hkv,hk->hv", state, k[t]))
        state = state + torch.einsum("hk,hv->hkv", k[t], u)
        out.append(torch.einsum("hkv,hk->hv", state, q[t]) * q.shape[-1] ** -0.5)
        states.append(state)
    return torch.stack(out), states


def delta_chunked(q, k, v, beta, state, size):
    """The same in chunks: T = (I + tril(diag(b) K K^T, -1))^-1, U = T diag(b) (V - K S)."""
    out = []
    for first in range(0, q.shape[0], size):
        # (H, C, .)
        qc, kc, vc = (a[first:first + size].transpose(0, 1) for a in (q, k, v))
        b = beta[first:first + size].T[..., None]
        lower = torch.tril(b * kc @ kc.transpose(1, 2), -1)
        u = torch.linalg.solve_triangular(torch.eye(kc.shape[1]).double() + lower, b * (vc - kc @ state), upper=False)
        qc = qc * q.shape[-1] ** -0.5
        out.append((qc @ state + torch.tril(qc @ kc.transpose(1, 2)) @ u).transpose(0, 1))
        state = state + kc.transpose(1, 2) @ u
    return torch.cat(out), state


def splits(sizes, t):
    return sorted(sizes.sample(range(1, t), 3))


def draw_delta_rule(rng, sizes, seed, negative=False):
    if seed == 0:
        t, heads, key, value, chunk, points = 64, 2, 8, 8, 16, [1, 16, 41]
    else:
        t, heads, key, value = sizes.randint(20, 90), sizes.randint(1, 4), sizes.randint(3, 20), sizes.randint(3, 20)
        chunk, points = sizes.choice([7, 16, 32]), splits(sizes, t)
    inputs = {"q_raw": normal(rng, t, heads, key), "k_raw": normal(rng, t, heads, key),
              "v": normal(rng, t, heads, value), "beta": uniform(rng, t, heads, high=2.0 if negative else 1.0),
              "S0": normal(rng, heads, key, value, std=0.5)}
    return inputs, {"T": t, "H": heads, "K": key, "V": value, "chunk_size": chunk, "split_points": points,
                    "allow_neg_eigval": negative, "l2_eps": 1e-6, "scale": key ** -0.5, "layout": "S[H,K,V]",
                    "section": "C2", "reference": "plain torch, float64", "tol_abs": 2e-5, "tol_rel": 1e-4}


def compute_delta_rule(inputs, metadata):
    q, k = (l2(inputs[n], metadata["l2_eps"]) for n in ("q_raw", "k_raw"))
    v, beta, start = inputs["v"], inputs["beta"], inputs["S0"]
    zero = torch.zeros_like(start)
    o, states = delta_recurrent(q, k, v, beta, zero)
    chunked, chunk_state = delta_chunked(q, k, v, beta, zero, metadata["chunk_size"])
    from_start, start_states = delta_recurrent(q, k, v, beta, start)
    out = {"q": q, "k": k, "o": o, "S_final": states[-1], "o_chunk": chunked, "S_chunk": chunk_state,
           "o_from_S0": from_start, "S_final_from_S0": start_states[-1]}
    for i, point in enumerate(metadata["split_points"]):
        out[f"S_split{i}"] = states[point - 1]
    return out


def draw_delta_layer(rng, sizes, seed, gate=False):
    if seed == 0:
        t, d, heads, key, value, points = 40, 32, 2, 16, 16, [2, 16, 33]
    else:
        t, d, heads = sizes.randint(20, 60), 8 * sizes.randint(2, 7), sizes.randint(1, 4)
        key, value = sizes.randint(4, 20), sizes.randint(4, 20)
        points = splits(sizes, t)
    inputs = {"x": normal(rng, t, d), "w.o_norm": normal(rng, value, std=0.2, mean=1.0),
              "w.b_proj": normal(rng, heads, d, std=d ** -0.5),
              "w.o_proj": normal(rng, d, heads * value, std=(heads * value) ** -0.5)}
    for name, width in (("q", key), ("k", key), ("v", value)):
        inputs[f"w.{name}_proj"] = normal(rng, heads * width, d, std=d ** -0.5)
        inputs[f"w.{name}_conv"] = normal(rng, heads * width, 4, std=0.5)
    if gate:
        inputs["w.g_proj"] = normal(rng, heads * value, d, std=d ** -0.5)
    return inputs, {"T": t, "d_model": d, "H": heads, "K": key, "V": value, "split_points": points, "conv_size": 4,
                    "output_gate": gate, "feature_map": "silu+l2", "l2_eps": 1e-6, "norm_eps": 1e-5, "section": "C2",
                    "layout": "S[H,K,V]; Linear weights [out,in]; conv weight [D,4], column 3 = current token; "
                              "conv state [D,4] = last 4 conv inputs, oldest first",
                    "reference": "plain torch, float64", "tol_abs": 5e-5, "tol_rel": 2e-4}


def causal_conv(x, weight):
    """x (T, D), weight (D, N), column N-1 = the current token; then SiLU."""
    taps = weight.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    return F.silu(sum(padded[i:i + x.shape[0]] * weight[:, i] for i in range(taps)))


def last_inputs(x, count, taps):
    return F.pad(x[:count], (0, 0, taps, 0))[-taps:].T


def compute_delta_layer(inputs, metadata):
    w = {k[2:]: v for k, v in inputs.items() if k.startswith("w.")}
    x, heads, taps = inputs["x"], metadata["H"], metadata["conv_size"]
    raw = {n: x @ w[f"{n}_proj"].T for n in "qkv"}
    q, k, v = (causal_conv(raw[n], w[f"{n}_conv"]).unflatten(-1, (heads, -1)) for n in "qkv")
    beta = torch.sigmoid(x @ w["b_proj"].T) * (2 if metadata.get("allow_neg_eigval") else 1)
    zero = torch.zeros(heads, k.shape[-1], v.shape[-1]).double()
    o, states = delta_recurrent(l2(q, metadata["l2_eps"]), l2(k, metadata["l2_eps"]), v, beta, zero)
    normed = o * torch.rsqrt(o.square().mean(-1, keepdim=True) + metadata["norm_eps"]) * w["o_norm"]
    normed = normed.flatten(-2)
    if metadata["output_gate"]:
        normed = normed * F.silu(x @ w["g_proj"].T)
    out = {"beta": beta, "o_op": o, "y": normed @ w["o_proj"].T}
    places = {"final": x.shape[0], **{f"split{i}": p for i, p in enumerate(metadata["split_points"])}}
    for place, count in places.items():
        out[f"{place}.S"] = states[count - 1]
        out.update({f"{place}.conv_{n}": last_inputs(raw[n], count, taps) for n in "qkv"})
    return out


# ---- the set ----------------------------------------------------------------------------------

def mlp_input(key):
    return key.startswith("w.") or key in ("x", "upstream")


def rule_input(key):
    return key in ("q_raw", "k_raw", "v", "beta", "S0")


MAKERS = {
    "mlp_swiglu": (draw_mlp_swiglu, compute_mlp_swiglu, mlp_input),
    "mlp_gelu": (draw_mlp_gelu, compute_mlp_gelu, mlp_input),
    "lora": (draw_lora, compute_lora, mlp_input),
    "delta_rule": (draw_delta_rule, compute_delta_rule, rule_input),
    "delta_rule_negeig": (lambda *a: draw_delta_rule(*a, negative=True), compute_delta_rule, rule_input),
    "delta_rule_layer": (draw_delta_layer, compute_delta_layer, mlp_input),
    "delta_rule_layer_gate": (lambda *a: draw_delta_layer(*a, gate=True), compute_delta_layer, mlp_input),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", metavar="DIR")
    args = parser.parse_args()
    if (args.out is None) == (args.check is None):
        parser.error("expected either OUT or --check DIR")
    if args.check:
        paths = {n: os.path.join(args.check, n + ".safetensors") for n in MAKERS}
        found = [n for n in MAKERS if os.path.exists(paths[n])]
        bad = [n for n in found if check(paths[n], *MAKERS[n][1:])]
        print(f"{len(found) - len(bad)} passed, {len(bad)} failed")
        sys.exit(1 if bad or not found else 0)
    os.makedirs(args.out, exist_ok=True)
    for place, (name, (draw, compute, _)) in enumerate(MAKERS.items()):
        sizes, rng = generators(1000 * args.seed + place)
        inputs, metadata = draw(rng, sizes, args.seed)
        save(args.out, name, {**inputs, **compute(inputs, metadata)}, metadata)


if __name__ == "__main__":
    main()
