"""Writes the vectors of tests/interop: checkpoints of tiny torch models, tokens and logits.

    python tests/interop/generate_vectors.py [NAME ...] [--out FOLDER] [--seed N]

in an environment with torch, transformers and flash-linear-attention (with triton). Each layout has
a folder with `config.json` and `model.safetensors` as `save_pretrained` writes them, and
`logits.npz`: tokens [B, T], logits of the whole [B, T, vocab], and those of a prefill of `split`
tokens with a cache, and of single tokens after it.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
VECTORS = HERE / "vectors"
SPLIT = 7
TINY = {"vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}


RWKV7 = {
    "head_dim": 8,
    "decay_low_rank_dim": 3,
    "gate_low_rank_dim": 5,
    "a_low_rank_dim": 4,
    "v_low_rank_dim": 2,
}


def _fla(name, **fields):
    sys.path.insert(0, str(HERE))
    import fla.models
    import torch_fla
    import torch_rwkv7

    torch_fla.use_cpu()
    torch_rwkv7.use_cpu()
    config = getattr(fla.models, f"{name}Config")(**TINY | fields)
    return getattr(fla.models, f"{name}ForCausalLM")(config)


def _transformers(name, model=None, **fields):
    for module in [m for m in sys.modules if m.partition(".")[0] == "fla"] + ["fla"]:
        sys.modules[module] = None  # whose kernels transformers would take, on a CPU, too
    import transformers

    config = getattr(transformers, f"{name}Config")(**TINY | fields)
    return getattr(transformers, f"{model or name}ForCausalLM")(config)


MODELS = {
    "gated_deltanet": lambda: _fla(
        "GatedDeltaNet", head_dim=6, num_heads=2, num_v_heads=4, expand_v=1.5, norm_eps=1e-5
    ),
    "gated_deltanet_plain": lambda: _fla(
        "GatedDeltaNet",
        head_dim=4,
        num_heads=3,
        use_gate=False,
        use_short_conv=False,
        allow_neg_eigval=True,
        tie_word_embeddings=True,
    ),
    "delta_net": lambda: _fla("DeltaNet", num_heads=2, expand_v=1.5, allow_neg_eigval=True),
    "delta_net_gated": lambda: _fla("DeltaNet", num_heads=2, use_gate=True, use_beta=False),
    "gla": lambda: _fla("GLA", num_heads=2, clamp_min=-0.05),
    "gla_conv": lambda: _fla("GLA", num_heads=2, use_short_conv=True, use_output_gate=False),
    "rwkv7": lambda: _fla("RWKV7", **RWKV7),
    "rwkv7_unfused": lambda: _fla(
        "RWKV7", **RWKV7, fuse_norm=False, norm_first=False, tie_word_embeddings=True
    ),
    "retnet": lambda: _fla("RetNet", num_heads=2),
    "gla_grouped": lambda: _fla("GLA", num_heads=4, num_kv_heads=2, expand_k=1.0),
    "gated_deltanet_hybrid": lambda: _fla(
        "GatedDeltaNet",
        head_dim=4,
        num_heads=2,
        expand_v=1.5,
        attn={"layers": [1], "num_heads": 4, "num_kv_heads": 2, "window_size": 5},
    ),
    "delta_net_hybrid": lambda: _fla(
        "DeltaNet", num_heads=2, attn={"layers": [0], "num_heads": 2, "rope_theta": 100.0}
    ),
    "olmo_hybrid": lambda: _transformers(
        "OlmoHybrid",
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=3,
        linear_value_head_dim=5,
        pad_token_id=None,
        eos_token_id=None,
    ),
    "qwen3_5": lambda: _transformers(
        "Qwen3_5Text",
        model="Qwen3_5",
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=3,
        linear_value_head_dim=5,
    ),
    "mamba2": lambda: _transformers(
        "Mamba2", num_heads=4, head_dim=8, state_size=6, n_groups=2, layer_norm_epsilon=1e-5
    ),
}


def randomised(model, seed):
    """The model with each parameter drawn around its initial scale, none at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        fan = parameter.shape[-1] if parameter.ndim > 1 else 4
        scale = 1.0 if "embed" in name or "conv" in name else fan**-0.5
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = centre + (0.2 if centre else 1.0) * scale * noise
    return model.eval()


def vectors(model, tokens):
    """Logits of the whole, and of a prefill and single tokens with a cache."""
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        out = model(tokens[:, :SPLIT], use_cache=True)
        pieces = [out.logits]
        kept = "past_key_values" if type(model).__module__.startswith("fla.") else "cache"
        for t in range(SPLIT, tokens.shape[1]):
            out = model(tokens[:, t : t + 1], use_cache=True, **{kept: out[kept]})
            pieces.append(out.logits)
    return {"logits": whole.numpy(), "cached": torch.cat(pieces, 1).numpy()}


def generate(name, out, seed):
    """Write the folder of a layout."""
    torch.manual_seed(0)
    model = randomised(MODELS[name](), seed)
    tokens = torch.randint(model.config.vocab_size, (2, 12), generator=torch.manual_seed(1))
    folder = out / name
    model.save_pretrained(folder)
    np.savez(folder / "logits.npz", tokens=tokens.numpy(), split=SPLIT, **vectors(model, tokens))
    print(name, sum(p.numel() for p in model.parameters()), flush=True)


def main():
    """Write all, or those that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=pathlib.Path, default=VECTORS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.names or MODELS:
        generate(name, args.out, args.seed)


if __name__ == "__main__":
    main()
