#!/usr/bin/env python3
"""Writes the seeds of the model readers' fuzzers, from the format descriptions alone."""
import json
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCKS = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34)}


def save(folder, name, data):
    os.makedirs(os.path.join(HERE, "corpus", folder), exist_ok=True)
    with open(os.path.join(HERE, "corpus", folder, name), "wb") as file:
        file.write(data)


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    if v and isinstance(v[0], int):
        return struct.pack("<IIQ", 9, 5, len(v)) + b"".join(struct.pack("<i", x) for x in v)
    return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(text(x) for x in v)


def gguf(version, pairs, tensors):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    head += b"".join(text(k) + value(v) for k, v in pairs.items())
    data = b""
    for name, (shape, kind) in tensors.items():
        head += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape[::-1])
        head += struct.pack("<IQ", kind, len(data))
        size = BLOCKS[kind][1]
        for n in shape:
            size *= n
        data += bytes(i * 7 % 61 for i in range(size // BLOCKS[kind][0]))
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


def byte_symbols():
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in own]
    return [chr(b) if b in own else chr(256 + rest.index(b)) for b in range(256)]


def llama(tokens, merges):
    types = [1] * (len(tokens) - 1) + [3]
    return {"general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 32,
            "llama.feed_forward_length": 32, "llama.context_length": 64, "llama.attention.head_count": 2,
            "llama.attention.head_count_kv": 1, "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.rope.freq_base": 10000.0, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.eos_token_id": len(tokens) - 1, "tokenizer.ggml.add_bos_token": False}


def write_gguf():
    few = ["H", "e", "l", "o", "He", "ll", "<|end|>"]
    tensors = {"token_embd.weight": ((7, 32), 3), "blk.0.attn_q.weight": ((32, 32), 8)}
    save("gguf", "llama.gguf", gguf(3, llama(few, ["H e", "l l"]), tensors))
    save("gguf", "version2.gguf", gguf(2, {"general.alignment": 32, "a": [1, -2], "b": "t"}, {"x": ((2, 3), 0)}))
    every = {f"t{kind}": ((2, 32), kind) for kind in BLOCKS}
    save("gguf", "types.gguf", gguf(3, {"f": 0.5}, every))
    save("gguf", "empty.gguf", gguf(3, {}, {}))


def safetensors(tensors, metadata=None):
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes(i * 5 % 251 for i in range(size))
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def write_safetensors():
    save("safetensors", "floats", safetensors({"a": ("F32", [2, 3], 24), "b": ("BF16", [3], 6), "c": ("F16", [1], 2)}))
    save("safetensors", "integers", safetensors({"i": ("I64", [2], 16), "j": ("I32", [1], 4), "u": ("U8", [3], 3)},
                                                {"tol_abs": "1e-5", "note": "\u00e9"}))
    save("safetensors", "empty", safetensors({}))
    save("safetensors", "scalar", safetensors({"s": ("F32", [], 4), "none": ("F32", [0, 4], 0)}))


def write_json():
    llama_config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4,
                    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "hidden_act": "silu",
                    "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}, "eos_token_id": [2, 3]}
    gpt2_config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64,
                   "vocab_size": 256, "activation_function": "gelu_new", "n_inner": None}
    vocab = {symbol: i for i, symbol in enumerate(byte_symbols()[:128])} | {"ab": 128}
    pre = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                                 {"type": "ByteLevel", "add_prefix_space": False}]}
    tokenizer = {"normalizer": None, "pre_tokenizer": pre,
                 "added_tokens": [{"id": 129, "content": "<|end|>", "special": True}],
                 "model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]}}
    save("json", "llama.json", json.dumps(llama_config).encode())
    save("json", "gpt2.json", json.dumps(gpt2_config).encode())
    save("json", "vocab.json", json.dumps({"a": 0, "b": 1, "ab": 2}).encode())
    save("json", "tokenizer.json", json.dumps(tokenizer, ensure_ascii=False).encode())


if __name__ == "__main__":
    write_gguf()
    write_safetensors()
    write_json()
