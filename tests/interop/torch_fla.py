"""flash-linear-attention without a GPU: its modules, with each kernel replaced by torch operators.

The recurrences are the naive references of the package itself. `use_cpu()` replaces the kernels in
the modules of the models; models made before run on them, too.
"""

import torch
import torch.nn.functional as F  # noqa: N812


def use_cpu():
    """Replace the kernels of the models that the tests convert."""
    import fla.layers.attn as attn
    import fla.layers.delta_net as delta_net
    import fla.layers.gated_deltanet as gated_deltanet
    import fla.layers.gla as gla
    import fla.layers.multiscale_retention as retention
    import fla.modules.mlp as mlp
    from fla.modules import FusedRMSNormGated, RMSNorm, RotaryEmbedding, ShortConvolution
    from fla.ops.gla.naive import naive_recurrent_gla

    attn.flash_attn_func = _attention
    RMSNorm.forward = _rms_norm
    FusedRMSNormGated.forward = lambda self, x, g: _rms_norm(self, x) * F.silu(g)
    ShortConvolution.forward = _conv
    RotaryEmbedding.forward = _rotate
    mlp.SwiGLULinear.forward = lambda self, x, y, weight, bias: F.linear(F.silu(x) * y, weight)
    gated_deltanet.GatedDeltaNet._use_fused_qkv_conv = lambda *args, **kwargs: False
    for name in ("chunk", "fused_recurrent"):
        setattr(gated_deltanet, f"{name}_gated_delta_rule", _gated_delta_rule)
        setattr(delta_net, f"{name}_delta_rule", _delta_rule)
        setattr(retention, f"{name}_retention", _retention)

    def linear(q, k, v, initial_state, output_final_state, gk=None, g=None, **_):
        decay = g if gk is None else gk
        return naive_recurrent_gla(q, k, v, decay, initial_state, output_final_state)

    for name in ("chunk", "fused_chunk", "fused_recurrent"):
        setattr(gla, f"{name}_gla", linear)


def _rms_norm(self, x, residual=None, prenorm=False):
    x = x if residual is None else x + residual
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight
    return (y, x) if prenorm else y


def _conv(self, x, cache=None, output_final_state=False, **_):
    width = self.kernel_size[0]
    past = x.new_zeros(x.shape[0], x.shape[2], width) if cache is None else cache
    inputs = torch.cat([past[:, :, 1:], x.transpose(1, 2)], -1)
    y = F.conv1d(inputs, self.weight, self.bias, groups=x.shape[2]).transpose(1, 2)
    y = F.silu(y) if self.activation in ("silu", "swish") else y
    return y, (
        torch.cat([past, x.transpose(1, 2)], -1)[:, :, -width:] if output_final_state else None
    )


def _rotate(self, q, k, seqlen_offset=0, **_):
    at = torch.arange(q.shape[1], dtype=torch.float64) + seqlen_offset
    inverse = self.base ** (-torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)
    angle = (at[:, None] * inverse)[None, :, None]
    c, s = (table.to(q.dtype) for table in (angle.cos(), angle.sin()))

    def turned(x):
        first, second = x.chunk(2, -1)
        return torch.cat([first * c - second * s, second * c + first * s], -1)

    return turned(q), turned(k)


def _attention(q, k, v, causal, window_size):
    """The last query sees the last key; a window of -1 is none."""
    assert causal
    at = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    seen = torch.arange(k.shape[1])[None, :]
    mask = seen <= at
    if window_size[0] >= 0:
        mask = mask & (seen >= at - window_size[0])
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
    scores = torch.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, v)


def _normalised(x):
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def _gated_delta_rule(
    q,
    k,
    v,
    g,
    beta,
    A_log,
    dt_bias,
    initial_state,
    output_final_state,
    allow_neg_eigval,
    **_,
):
    from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule

    q, k = (_normalised(x).repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))
    beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    g = -A_log.exp() * F.softplus(g + dt_bias)
    return naive_recurrent_gated_delta_rule(
        q, k, v, beta, g, initial_state=initial_state, output_final_state=output_final_state
    )


def _delta_rule(q, k, v, beta, initial_state, output_final_state, **_):
    from fla.ops.delta_rule.naive import delta_rule_recurrence

    q, k, v, beta = (x.transpose(1, 2) for x in (_normalised(q), _normalised(k), v, beta))
    o, state = delta_rule_recurrence(q, k, v, beta, initial_state, output_final_state)
    return o.transpose(1, 2), state


def _retention(q, k, v, initial_state, output_final_state, **_):
    from fla.ops.gla.naive import naive_recurrent_gla
    from fla.ops.retention.naive import naive_retention

    heads = torch.arange(q.shape[2], dtype=torch.float64)
    decay = torch.log1p(-(2.0 ** (-5 - heads))).to(q.dtype)[:, None].expand_as(q)
    o, state = naive_recurrent_gla(q, k, v, decay, initial_state, output_final_state)
    if initial_state is None:
        o = naive_retention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    return o, state
