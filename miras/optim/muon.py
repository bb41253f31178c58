"""Muon: orthogonalised steps on matrix weights."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Leaf
from miras.config import added, own, require
from miras.optim.base import register
from miras.optim.coefficients import Coefficients, products
from miras.optim.momentum import momentum_of
from miras.optim.omega import Windowed
from miras.parts.formula import AlgorithmFormula, Line, times

Quintics = Literal["one", "five"]
Triple = tuple[float, float, float]

# The quintic of K. Jordan et al., "Muon" (kellerjordan.github.io/posts/muon, 2024): its slope at 0
# is large, and five steps bring singular values into about [0.7, 1.2]. LaCT's code for video and
# view synthesis has it too.
QUINTIC = (3.4445, -4.7750, 2.0315)
# One for each of five steps, which bring them nearer to 1: zeropower_via_newtonschulz5 in LaCT's
# code for language models (lact_llm/lact_model/ttt_operation.py).
QUINTICS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def triples(quintics: Quintics, steps: int) -> tuple[Triple, ...]:
    """(a, b, c) of each step."""
    return (QUINTIC,) * steps if quintics == "one" else QUINTICS[:steps]


def newton_schulz(S: Leaf, steps: int, quintics: Quintics = "one") -> Leaf:
    """S with its singular values brought near 1; a vector is divided by its length.

    X = S / (||S||_F + 1e-7);  X = a X + (b X X^T + c (X X^T)^2) X, `steps` times
    """
    if S.ndim == 1:
        return S / (_norm(S) + 1e-7)
    X = S / (_norm(S) + 1e-7)
    wide = X.shape[0] <= X.shape[1]
    X = X if wide else X.T
    for a, b, c in triples(quintics, steps):
        gram = X @ X.T
        X = a * X + (b * gram + c * gram @ gram) @ X
    return X if wide else X.T


def _norm(S: Leaf) -> jax.Array:
    """Frobenius norm, with a finite gradient at 0."""
    square = jnp.sum(S * S)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transformed(Windowed):
    """Base of algorithms whose step is a non-linear function of the accumulated gradient.

        S_t = mu_t S_{t-1} + e_t G_t        U_t = -f_t T(S_t)

    with every="token". With every="chunk" the memory only decays inside a chunk, and T acts once,
    at the chunk's last token, with that token's f; without momentum S starts anew with each chunk,
    and a chunk that is cut short has not acted. Reads inside the chunk then see the snapshot, so
    the rule needs read="snapshot".

    Attributes:
        every: when T acts.
        lr_at: eta_t is f ("update", Atlas) or e, inside the sum ("gradient", LaCT).
    """

    linear: ClassVar[bool] = False
    takes_terms: ClassVar[bool] = False

    every: Literal["chunk", "token"] = "token"
    lr_at: Literal["update", "gradient"] = "update"

    @property
    def acts(self) -> Literal["token", "chunk"]:
        """`every`."""
        return self.every

    @property
    def keeps(self) -> tuple[str, ...]:
        """S, also without momentum where it adds up over a chunk."""
        return () if self.momentum is None and self.every == "token" else ("S",)

    def coefficients(self, log_decay, gates, write, band) -> Coefficients:
        """The chunk's decay and the accumulated gradient; nothing is written before its end."""
        size = write.shape[0]
        _, beta = products(log_decay, size, write.dtype)
        Lm, m = products(gates.get("log_momentum"), size, write.dtype)
        n = -(Lm if band is None else Lm @ band)
        return Coefficients(jnp.zeros_like(n), beta, jnp.zeros_like(m), n, m)

    def accumulate(self, S, G, gates):
        """mu_t S_{t-1} + G_t."""
        return (S if self.momentum is None else momentum_of(gates) * S) + G

    def step(self, S, V, G, gates):
        """U_t = -f_t T(S_t)."""
        new = G if self.momentum is None else self.accumulate(S, G, gates)
        U, V = self.transform(new, V, gates)
        return (None if self.momentum is None else new), V, U

    def accumulated(self, gates, G: str) -> tuple[str, tuple[Line, ...]]:
        """LaTeX of S_t, or of the gradient where none is kept, and the line that defines it."""
        if not self.keeps or "S" not in self.keeps:
            return G, ()
        mu = gates.get("log_momentum", "")
        when = ""
        if self.acts == "chunk" and self.momentum is None:
            when = "from 0 at a chunk's first token"
        return "S_t", (Line("S_t", f"{times(mu, 'S_{t-1}')} + {G}", when=when),)


@register("muon")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(Transformed):
    """T(S) = NewtonSchulz(S): every direction of the step is of about the same length.

    Atlas (2505.23735), section 4, with every="token"; LaCT (2505.23884), section 3, with
    every="chunk", lr_at="gradient".

    Attributes:
        steps: Newton-Schulz iterations, >= 1.
        quintics: "one" polynomial for all steps, Jordan's (Atlas, and LaCT's code for video and
            view synthesis); or "five", another for each of at most 5 steps (LaCT's code for
            language models).
    """

    steps: int = own(5)
    quintics: Quintics = added("one")

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(self.steps >= 1, f"Muon.steps={self.steps} must be at least 1.")
        require(
            self.quintics == "one" or self.steps <= len(QUINTICS),
            f"Muon.steps={self.steps} must be at most {len(QUINTICS)} with quintics='five', or use "
            "quintics='one'.",
        )

    def transform(self, S, V, gates):
        """-f NewtonSchulz(S)."""
        return -self.step_rate(gates) * newton_schulz(S, self.steps, self.quintics), V

    def flops(self, shape: tuple[int, ...], chunk: int) -> float:
        """The iterations' products, of a matrix."""
        if len(shape) != 2:
            return 0.0
        small, large = min(shape), max(shape)
        once = self.steps * (4 * small * small * large + 2 * small**3)
        return once if self.acts == "token" else once / chunk

    def formula(self, gates, G, rate) -> AlgorithmFormula:
        """S_t, and its orthogonalisation."""
        S, lines = self.accumulated(gates, G)
        found = triples(self.quintics, self.steps)
        (a, b, c), of_step = found[0], ()
        X_n = f"{a} X_{{n-1}} - {-b} Y X_{{n-1}} + {c} Y^2 X_{{n-1}}"
        if self.quintics == "five":
            X_n = "a_n X_{n-1} + b_n Y X_{n-1} + c_n Y^2 X_{n-1}"
            each = (
                Line(f"a_{n}, b_{n}, c_{n}", ", ".join(map(str, x))) for n, x in enumerate(found, 1)
            )
            of_step = tuple(each)
        told = f"n = 1 to {self.steps}; a weight that is a vector is divided by its norm only"
        name = rf"\mathrm{{NS}}_{{{self.steps}}}"
        return AlgorithmFormula(
            f"- {times(rate, f'{name}({S})')}",
            lines,
            where=(
                Line(f"{name}(Z)", f"X_{{{self.steps}}}", when="Newton-Schulz, of each weight"),
                Line("X_0", r"\frac{Z}{\|Z\|_F + 10^{-7}}"),
                Line("X_n", X_n, when=told),
                *of_step,
                Line("Y", r"X_{n-1} X_{n-1}^\top"),
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """Atlas or LaCT, and Muon itself."""
        muon = "Jordan et al., Muon, kellerjordan.github.io/posts/muon, 2024"
        if self.every == "chunk":
            return ("LaCT, arXiv 2505.23884, section 3", muon)
        return ("Atlas, arXiv 2505.23735, section 4", muon)
