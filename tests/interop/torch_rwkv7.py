"""RWKV-7 of flash-linear-attention without a GPU: its kernels, replaced by torch operators.

The recurrence and the token shift are the naive references of the package itself.
"""

import torch
import torch.nn.functional as F  # noqa: N812


def use_cpu():
    """Replace the kernels in the modules of the models; call it before a model is made."""
    import fla.layers.rwkv7 as layer
    import fla.models.rwkv7.modeling_rwkv7 as model
    from fla.modules import GroupNorm, LayerNorm
    from fla.modules.activations import ACT2FN
    from fla.ops.rwkv7.fused_addcmul import torch_addcmul_rwkv7
    from fla.ops.rwkv7.fused_k_update import k_update_ref
    from fla.ops.rwkv7.gate_output_correction import gate_output_correction_ref

    ACT2FN["sqrelu"] = lambda x: F.relu(x).square()
    LayerNorm.forward = _layer_norm
    GroupNorm.forward = lambda self, x: F.group_norm(
        x.flatten(0, 1), self.num_groups, self.weight, self.bias, self.eps
    ).view(x.shape)
    layer.token_shift = model.token_shift = _token_shift
    layer.l2_norm = lambda x: x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
    layer.fused_addcmul_rwkv7 = torch_addcmul_rwkv7
    layer.fused_k_rwkv7 = k_update_ref
    layer.gate_output_correction = gate_output_correction_ref
    layer.fused_mul_recurrent_rwkv7 = _recurrence


def _layer_norm(self, x, residual=None, prenorm=False):
    x = x if residual is None else x + residual
    y = F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
    return (y, x) if prenorm else y


def _token_shift(x, cu_seqlens=None, cache=None, output_cache=False):
    from fla.modules.token_shift import token_shift_ref

    change = token_shift_ref(x)
    if cache is not None:
        change[:, 0] += cache.view(len(x), -1)
    return (change, x[:, -1]) if output_cache else change


def _recurrence(r, w, k, v, kk, a, scale, initial_state, output_final_state, cu_seqlens):
    from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence

    streams = (r * scale * r.shape[-1] ** 0.5, k, v, -kk, kk * a, w)  # it scales by d^-1/2
    streams = (x.transpose(1, 2) for x in streams)
    o, state = dplr_recurrence(
        *streams, initial_state=initial_state, output_final_state=output_final_state
    )
    return o.transpose(1, 2), state
