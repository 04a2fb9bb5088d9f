"""What the makers of golden numbers share: drawing sizes, writing a fixture, checking an old one.

A maker is two functions: `draw(rng, sizes) -> (inputs, metadata)` and
`compute(inputs, metadata) -> outputs`, the second in float64. So one command writes a new fixture,
and another takes an existing one's inputs, computes again and compares with what it holds.
"""
import json
import os
import random

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def text_of(value):
    return value if isinstance(value, str) else json.dumps(value)


def stored(tensor):
    """As fixtures hold it: float32 or int64, contiguous."""
    tensor = tensor.detach()
    kind = torch.int64 if tensor.dtype == torch.int64 else torch.float32
    return tensor.to(kind).contiguous().clone()


def save(out, name, tensors, metadata):
    metadata = {"fixture": name, "set": "regenerated", "torch": torch.__version__, **metadata}
    path = os.path.join(out, name + ".safetensors")
    save_file({key: stored(value) for key, value in tensors.items()}, path,
              metadata={key: text_of(value) for key, value in metadata.items()})
    os.chmod(path, 0o644)  # safetensors leaves it to its owner alone
    print(f"{name}: {len(tensors)} tensors", flush=True)


def load(path):
    with safe_open(path, "pt") as file:
        raw = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    metadata = {}
    for key, value in raw.items():
        try:
            metadata[key] = json.loads(value)
        except json.JSONDecodeError:
            metadata[key] = value
    return tensors, metadata


def f64(tensors):
    return {k: v if v.dtype == torch.int64 else v.double() for k, v in tensors.items()}


def worst(got, want, tol_abs, tol_rel):
    """Largest |got - want| as a share of what is allowed, and plainly."""
    difference = (got.double() - want.double()).abs()
    allowed = tol_abs + tol_rel * want.double().abs()
    return (difference / allowed).max().item(), difference.max().item()


def check(path, compute, is_input):
    """Computes an existing fixture again from its inputs; returns the outputs that disagree."""
    tensors, metadata = load(path)
    outputs = compute(f64({k: v for k, v in tensors.items() if is_input(k)}), metadata)
    bad, largest = [], 0.0
    for key, want in tensors.items():
        if is_input(key):
            continue
        if key not in outputs or outputs[key].shape != want.shape:
            bad.append(f"{key}: expected shape {list(want.shape)}")
            continue
        share, difference = worst(outputs[key], want, metadata["tol_abs"], metadata["tol_rel"])
        largest = max(largest, difference)
        if not share <= 1:
            bad.append(f"{key}: off by {difference:.2e}, {share:.1f} x the tolerance")
    name = os.path.basename(path)
    print(f"{name}: largest difference {largest:.1e}" + "".join("\n  " + line for line in bad), flush=True)
    return bad


def generators(seed):
    """(for sizes, for numbers). The numbers' one is torch's; sizes are few and drawn by Python's."""
    return random.Random(seed), torch.Generator().manual_seed(seed)


def normal(rng, *shape, std=1.0, mean=0.0):
    # Rounded to float32 first: what the fixture stores is exactly what was computed with.
    return (torch.randn(*shape, generator=rng) * std + mean).float().double()


def uniform(rng, *shape, low=0.0, high=1.0):
    return (torch.rand(*shape, generator=rng) * (high - low) + low).float().double()
