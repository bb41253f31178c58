"""l2 retention: weight decay, local and global, of RetNet, Mamba-2, Titans and Yaad."""

import dataclasses

from miras.retention.base import Decaying, register


@register("l2")
@dataclasses.dataclass(frozen=True)
class L2(Decaying):
    """A_t = alpha_t A_{t-1} + S_t, W_t = A_t; alpha_t per head. MIRAS (2504.13173), table 1.

    With `data_dependent=False` alpha is the constant of RetNet (2307.08621); otherwise it comes
    from the token, as in Mamba-2 (2405.21060) and Titans (2501.00663, equation 13).
    """
