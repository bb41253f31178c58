"""A run as a model of EleutherAI's lm-eval; `harness` evaluates it on lm-eval's tasks.

Importing it needs lm-eval, the extra `eval`.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import LM

from miras.analysis.eval.completions import complete
from miras.analysis.eval.continuations import (
    Continuation,
    score_continuations,
    score_texts,
)
from miras.analysis.eval.row_reader import make_reader
from miras.data import Tokenizer, check_text
from miras.errors import ConfigError
from miras.models import Sampling
from miras.train import Run

_LENGTH = 256  # tokens of a completion if a task does not say, as for lm-eval's other models
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")


class HarnessModel(LM):
    """Answers lm-eval's three kinds of requests with the model of a run.

    A text begins with the document start, as in training. Contexts are never truncated: the state
    carries over any number of tokens.

    Args:
        run: from `load_run`, trained on text.
        progress: called with the number of requests of each batch.

    Raises:
        ConfigError: the run was not trained on text, or its model lacks ids of the tokenizer.
    """

    def __init__(self, run: Run, progress: Callable[[int], None] = lambda count: None) -> None:
        super().__init__()
        check_text(run.config.data, "lm-eval")
        size, vocab = run.tokenizer.vocab_size, run.config.model.vocab
        if size > vocab:
            raise ConfigError(
                f"the tokenizer has {size} ids and the model {vocab}: lm-eval needs a run whose "
                "model.vocab is at least that of its tokenizer."
            )
        self._tokenizer, self._progress = run.tokenizer, progress
        self._reader = make_reader(run)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's fingerprint, for lm-eval's cache of requests."""
        return self._tokenizer.fingerprint

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(log p(continuation | context), whether greedy decoding gives it) of each request."""
        pairs = [encode_pair(self._tokenizer, *request.args) for request in requests]
        found = score_continuations(self._reader, pairs, self._progress)
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, tuple(answer))
        return [(answer.logprob, answer.greedy) for answer in found]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """log p(text) of each request. There are no windows: the state carries over the text."""
        texts = [self._started(request.args[0]) for request in requests]
        found = score_texts(self._reader, texts, self._progress)
        sums = [float(logprobs.sum(dtype=np.float64)) for logprobs in found]
        for request, answer in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return sums

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The completion of each context, up to a stop string of its request."""
        groups: dict[str, list[int]] = {}
        for n, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(n)
        found: dict[int, str] = {}
        for options, numbers in groups.items():
            length, until, sampling = _decoding(json.loads(options), self._tokenizer.vocab_size)
            contexts = [self._started(requests[n].args[0]) for n in numbers]
            texts = complete(
                self._reader, self._tokenizer, contexts, length, until, sampling, self._progress
            )
            found |= dict(zip(numbers, texts, strict=True))
        for n, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, found[n])
        return [found[n] for n in range(len(requests))]

    def _started(self, text: str) -> np.ndarray:
        return np.append(np.int32(self._tokenizer.bos_id), self._tokenizer.encode(text))


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> Continuation:
    """A context and its continuation as ids, as lm-eval's `TemplateLM._encode_pair` splits them.

    Spaces at the end of the context move to the continuation. Both are encoded as one text, of
    which the continuation is what is after the number of ids that the context alone has.
    """
    moved = len(context) - len(context.rstrip())
    if moved:
        context, continuation = context[:-moved], context[-moved:] + continuation
    own = tokenizer.encode(context) if context else np.zeros(0, np.int32)
    whole = tokenizer.encode(context + continuation)
    start = np.append(np.int32(tokenizer.bos_id), own).astype(np.int32)
    return Continuation(start, whole[len(own) :])


def _decoding(options: dict[str, Any], vocab: int) -> tuple[int, Sequence[str], Sampling]:
    """The most tokens, the stop strings and the sampling of a request's options.

    Raises:
        ConfigError: for an option that this model does not have.
    """
    given = dict(options)
    lengths = [given.pop(name) for name in _LENGTHS if name in given]
    until = given.pop("until", None) or []
    temperature = float(given.pop("temperature", None) or 0)
    drawn = given.pop("do_sample", None)
    drawn = temperature > 0 if drawn is None else drawn
    sampling = Sampling(
        temperature=(temperature or 1.0) if drawn else 0.0,
        top_k=given.pop("top_k", None) or None,
        top_p=given.pop("top_p", None) or None,
        vocab=vocab,
    )
    for name, value in given.items():
        if not (name == "num_beams" and value == 1):
            raise ConfigError(
                f"lm-eval's task sets {name}={value!r} for generation, which miras does not have: "
                "its options are until, max_gen_toks, do_sample, temperature, top_k and top_p."
            )
    length = int(lengths[0]) if lengths else _LENGTH
    return length, [until] if isinstance(until, str) else until, sampling
