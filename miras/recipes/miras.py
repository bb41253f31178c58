"""The runs of the MIRAS paper (2504.13173, Table 5), whose layers, widths and rates are TTT's.

Common to all: FineWeb-Edu, a vocabulary of 32,000, rows of 4,096 tokens, 0.5 M tokens a step,
AdamW with a weight decay of 0.1 and a cosine (2501.00663, section 5.1). Chosen here, since the
papers do not say: the warm-up of a hundredth of the steps, which is 1 B of 100 B tokens as in
Gated DeltaNet (2412.06464); tied embeddings; bfloat16 activations; chunks of 64, the longer of the
two of the paper.
"""

import dataclasses
import math
from typing import Any

from miras.data import DataConfig
from miras.models import LanguageModelConfig
from miras.recipes.corpora import FINEWEB_EDU
from miras.recipes.registry import register
from miras.train import RunConfig, TrainConfig

ROWS, SEQUENCE = 128, 4096  # 0.5 M tokens a step
CHUNK = 64
_PAPER = "Behrouz et al., arXiv 2504.13173, Table 5"


@register(
    "miras-170m-15b",
    parameters=170e6,
    tokens=15e9,
    source=_PAPER,
    slices=("v5e-16", "v5e-64", "v6e-16", "v6e-64", "v5p-32", "v5p-128"),
)
def miras_170m(model: LanguageModelConfig) -> RunConfig:
    """12 layers of width 768.

    With tied embeddings and the SwiGLU of the larger models, as Llama has it, this is 122 M. An
    own matrix of the head and a SwiGLU of 4 times the width make it 174 M.
    """
    sizes = {"layers": 12, "width": 768, "heads": 16, "tie": False, "mlp_ratio": 4.0}
    return _run(model, 15e9, 3e-3, sizes)


@register(
    "miras-340m-15b",
    parameters=340e6,
    tokens=15e9,
    source=_PAPER,
    slices=("v5e-16", "v5e-64", "v5e-256", "v6e-16", "v6e-64", "v5p-32", "v5p-128", "2xv5e-16"),
)
def miras_340m(model: LanguageModelConfig) -> RunConfig:
    """24 layers of width 1024."""
    return _run(model, 15e9, 1.5e-3, {"layers": 24, "width": 1024, "heads": 16})


@register(
    "miras-760m-30b",
    parameters=760e6,
    tokens=30e9,
    source=_PAPER,
    slices=("v5e-16", "v5e-64", "v5e-256", "v6e-64", "v5p-32", "v5p-128", "2xv5e-64"),
)
def miras_760m(model: LanguageModelConfig) -> RunConfig:
    """24 layers of width 1536."""
    return _run(model, 30e9, 1.25e-3, {"layers": 24, "width": 1536, "heads": 16})


@register(
    "miras-1.3b-100b",
    parameters=1.3e9,
    tokens=100e9,
    source="Behrouz et al., arXiv 2504.13173, section 6, and Sun et al., arXiv 2407.04620",
    slices=("v5e-64", "v5e-256", "v6e-64", "v6e-256", "v5p-128", "v5p-256", "2xv5e-256"),
)
def miras_1_3b(model: LanguageModelConfig) -> RunConfig:
    """24 layers of width 2048: MIRAS does not give the size of its 1.3 B, TTT does."""
    return _run(model, 100e9, 1e-3, {"layers": 24, "width": 2048, "heads": 32})


def _run(
    model: LanguageModelConfig, tokens: float, rate: float, sizes: dict[str, Any]
) -> RunConfig:
    model = dataclasses.replace(
        model,
        **sizes,
        chunk=CHUNK,
        vocab=FINEWEB_EDU.vocabulary,
        dtype="bfloat16",
    )
    steps = math.ceil(tokens / (ROWS * SEQUENCE))
    return RunConfig(
        model=model,
        data=DataConfig(
            source=FINEWEB_EDU.name,
            tokenizer=FINEWEB_EDU.tokenizer,
            sequence=SEQUENCE,
            batch=ROWS,
        ),
        train=TrainConfig(
            steps=steps,
            learning_rate=rate,
            warmup=steps // 100,
            weight_decay=0.1,
            eval_every=1000,
            health_every=1000,
            checkpoint_every=1000,
        ),
    )
