"""The default model in transformers, its weights dequantised from the GGUF by the gguf package.

Not through transformers' own GGUF reader: that one is a peer, this is a second opinion. GGUF keeps
the rows of q and k in the order that an interleaved rotation wants; transformers rotates halves.
"""
import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM

PER_LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def field(reader, name):
    return reader.fields["llama." + name].contents()


def config_of(reader, tied, vocab):
    heads, width = field(reader, "attention.head_count"), field(reader, "embedding_length")
    return LlamaConfig(
        vocab_size=vocab, hidden_size=width, intermediate_size=field(reader, "feed_forward_length"),
        num_hidden_layers=field(reader, "block_count"), num_attention_heads=heads,
        num_key_value_heads=field(reader, "attention.head_count_kv"), head_dim=width // heads,
        max_position_embeddings=field(reader, "context_length"),
        rms_norm_eps=field(reader, "attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": float(field(reader, "rope.freq_base"))},
        tie_word_embeddings=tied, attn_implementation="sdpa")


def half_rotation(rows, heads):
    """(H d, D): in each head, row pairs (2i, 2i+1) become (i, i + d/2)."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def load_llama(path):
    """The model in float32, evaluation mode, no gradients."""
    reader = GGUFReader(path)
    dense = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
    tied = "output.weight" not in dense
    config = config_of(reader, tied, dense["token_embd.weight"].shape[0])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}

    weights = {"model.embed_tokens.weight": dense["token_embd.weight"],
               "model.norm.weight": dense["output_norm.weight"],
               "lm_head.weight": dense["token_embd.weight" if tied else "output.weight"]}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in PER_LAYER.items():
            value = dense[f"blk.{layer}.{theirs}.weight"]
            if theirs in heads:
                value = half_rotation(value, heads[theirs])
            weights[f"model.layers.{layer}.{ours}.weight"] = value

    model = LlamaForCausalLM(config)
    model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in weights.items()}, strict=True)
    return model.eval().requires_grad_(False)
