"""Baselines of DNA in NumPy: logistic regression on k-mer counts, and Markov chains.

What `experiments.promoters` and `experiments.lambda_genome` compare models with. Sequences are
integer arrays with A, C, G, T as 0 to 3.
"""

import numpy as np
from scipy.optimize import minimize


def kmer_counts(sequences: np.ndarray, k: int) -> np.ndarray:
    """How often each word of k letters occurs in each sequence, [n, 4^k] float64.

    Args:
        sequences: [n, length], values in [0, 4).
        k: length of the words.
    """
    count = sequences.shape[1] - k + 1
    words = np.zeros((len(sequences), count), np.int64)
    for i in range(k):
        words = 4 * words + sequences[:, i : i + count]
    found = np.zeros((len(sequences), 4**k))
    np.add.at(found, (np.arange(len(sequences))[:, None], words), 1.0)
    return found


def logistic_regression(features: np.ndarray, labels: np.ndarray, cost: float) -> np.ndarray:
    """The weights of a logistic regression, and the bias last.

    They minimise

        cost sum_n log(1 + exp(-y_n (w x_n + b))) + |w|^2 / 2,        y_n in {-1, 1}.

    Args:
        features: [n, d] float64.
        labels: [n], 0 or 1.
        cost: > 0; less of it is more regularisation.
    """
    signs = 2.0 * labels - 1

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (features @ weights[:-1] + weights[-1])
        slope = -cost * signs * np.exp(-np.logaddexp(0, margins))
        value = cost * np.logaddexp(0, -margins).sum() + weights[:-1] @ weights[:-1] / 2
        return value, np.append(features.T @ slope + weights[:-1], slope.sum())

    start = np.zeros(features.shape[1] + 1)
    return minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x


def markov_bits(
    train: np.ndarray, test: np.ndarray, order: int, alpha: float, *, adaptive: bool
) -> float:
    """Bits per base of a Markov chain whose orders are mixed by add-alpha.

    With n(c, x) how often x follows the context c, and c' the context without its first letter,

        p(x | c) = (n(c, x) + alpha p(x | c')) / (n(c) + alpha),        p(x | no context) = 1/4
                                                                        before its own counts.

    Args:
        train: [n], what the counts are of.
        test: [m], what is coded; its first contexts reach into the end of `train`.
        order: the longest context.
        alpha: weight of the shorter context, > 0.
        adaptive: whether the counts go on through `test`, as a memory's state does.
    """
    counts: list[dict[bytes, np.ndarray]] = [{} for _ in range(order + 1)]
    letters = np.concatenate([train, test]).astype(np.uint8).tobytes()
    bits = 0.0
    for place, letter in enumerate(letters):
        tested = place >= len(train)
        p = np.full(4, 0.25)
        for k in range(min(order, place) + 1):
            context = letters[place - k : place]
            own = counts[k].get(context)
            if tested and own is not None:
                p = (own + alpha * p) / (own.sum() + alpha)
            if adaptive or not tested:
                if own is None:
                    own = counts[k][context] = np.zeros(4)
                own[letter] += 1
        if tested:
            bits -= np.log2(p[letter])
    return bits / len(test)
