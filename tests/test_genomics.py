"""The baselines and the tables of `experiments.genomics`."""

import json
import pathlib

import numpy as np
import pytest

from experiments import genomics
from experiments.sequence_baselines import kmer_counts, logistic_regression, markov_bits

PAGE = pathlib.Path(__file__).parent.parent / "experiments" / "README.md"


def test_kmers_are_counted():
    found = kmer_counts(np.array([[0, 1, 0, 1, 3]]), 2)
    assert np.flatnonzero(found[0]).tolist() == [1, 4, 7]  # AC, CA, CT
    assert found[0, [1, 4, 7]].tolist() == [2, 1, 1]


def test_a_regression_is_at_its_minimum():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 3)), random.integers(0, 2, 40)
    weights = logistic_regression(x, y, 0.5)
    p = 1 / (1 + np.exp(-(x @ weights[:-1] + weights[-1])))
    np.testing.assert_allclose(0.5 * x.T @ (p - y) + weights[:-1], 0, atol=1e-4)
    assert (p - y).sum() == pytest.approx(0, abs=1e-3)


def slow_bits(train, test, order, alpha, adaptive):
    """Counts from the definition, anew for each letter."""
    letters, bits = [*train, *test], 0.0
    for place in range(len(train), len(letters)):
        known = letters[: place if adaptive else len(train)]
        p = np.full(4, 0.25)
        for k in range(order + 1):
            context = letters[place - k : place]
            after = [known[n] for n in range(k, len(known)) if known[n - k : n] == context]
            count = np.array([after.count(x) for x in range(4)])
            p = (count + alpha * p) / (count.sum() + alpha)
        bits -= np.log2(p[letters[place]])
    return bits / len(test)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_chain_codes_as_its_definition(order, adaptive):
    letters = np.random.default_rng(1).integers(0, 4, 60)
    letters[20:30], letters[45:55] = letters[:10], letters[:10]
    train, test = letters[:40], letters[40:]
    want = slow_bits(train.tolist(), test.tolist(), order, 2.0, adaptive)
    assert markov_bits(train, test, order, 2.0, adaptive=adaptive) == pytest.approx(want, abs=1e-12)


def test_similar_rows_are_in_one_fold(tmp_path):
    random = np.random.default_rng(0)
    rows = ["".join(random.choice(list("ACGT"), 40)) for _ in range(30)]
    other = rows[0].translate(str.maketrans("ACGT", "TGCA"))[::-1]
    rows += [rows[0][5:25] + rows[1][:20], other]
    (tmp_path / "rows.csv").write_text(
        "sequence,label\n" + "".join(f"{row},{n % 2}\n" for n, row in enumerate(rows))
    )
    folds = genomics.Promoters(tmp_path / "rows.csv").folds("similar")
    assert len({folds[n] for n in (0, 1, 30, 31)}) == 1
    assert np.bincount(folds).min() >= 5


def test_the_experiments_page_has_the_tables():
    page = PAGE.read_text()
    promoters, genome = (
        [json.loads(line) for line in (genomics.RESULTS / name).read_text().splitlines()]
        for name in (genomics.PROMOTERS, genomics.GENOME)
    )
    assert genomics.promoter_table(promoters) in page
    assert genomics.genome_table(genome) in page
