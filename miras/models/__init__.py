"""Models: embedding, blocks and head around the layers, and their states."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.layers import Health
    from miras.models.classifier import Classifier
    from miras.models.config import LanguageModelConfig
    from miras.models.decoding import (
        Sampling,
        Step,
        Verified,
        decode_step,
        generate,
        prefill,
        sample,
        steps,
        verify,
    )
    from miras.models.forecaster import Forecaster
    from miras.models.forecaster_config import ForecasterConfig
    from miras.models.language_model import LanguageModel
    from miras.models.rows import fork, join, put, reset, take
    from miras.models.scoring import Scored, score
    from miras.models.session import Session, load_session, save_session
    from miras.models.state import ModelState

__all__ = [
    "Classifier",
    "Forecaster",
    "ForecasterConfig",
    "Health",
    "LanguageModel",
    "LanguageModelConfig",
    "ModelState",
    "Sampling",
    "Scored",
    "Session",
    "Step",
    "Verified",
    "decode_step",
    "fork",
    "generate",
    "join",
    "load_session",
    "prefill",
    "put",
    "reset",
    "sample",
    "save_session",
    "score",
    "steps",
    "take",
    "verify",
]

lazy.package(
    __name__,
    {
        "miras.layers": ("Health",),
        ".classifier": ("Classifier",),
        ".config": ("LanguageModelConfig",),
        ".decoding": (
            "Sampling",
            "Step",
            "Verified",
            "decode_step",
            "generate",
            "prefill",
            "sample",
            "steps",
            "verify",
        ),
        ".forecaster": ("Forecaster",),
        ".forecaster_config": ("ForecasterConfig",),
        ".language_model": ("LanguageModel",),
        ".rows": ("fork", "join", "put", "reset", "take"),
        ".scoring": ("Scored", "score"),
        ".session": ("Session", "load_session", "save_session"),
        ".state": ("ModelState",),
    },
)
