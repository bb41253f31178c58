"""Models: embedding, blocks and head around the layers."""

from miras.layers import Health
from miras.models.config import LanguageModelConfig
from miras.models.decoding import decode_step, generate, prefill, sample, stream
from miras.models.language_model import LanguageModel, ModelState

__all__ = [
    "Health",
    "LanguageModel",
    "LanguageModelConfig",
    "ModelState",
    "decode_step",
    "generate",
    "prefill",
    "sample",
    "stream",
]
