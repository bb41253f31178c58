"""The time of a step from its parts, and what chips send each other."""

import dataclasses
import json

import pytest

from benchmarks.tpu_schedule import CASES, RESULTS, key
from miras.analysis.plan import kernels
from miras.analysis.plan.chips import CHIPS
from miras.analysis.plan.job import Job
from miras.analysis.plan.predict import ATTENTION, predict
from miras.analysis.plan.slices import planned_slice
from miras.analysis.plan.tables import notes
from miras.analysis.plan.traffic import bandwidth, step_traffic
from miras.config import override
from miras.presets import preset
from miras.rule.options import ScanOptions
from tests.analysis.plan.jobs import CHIP, job

WORDS = ("layers=2", "width=64", "heads=4", "vocab=512", "chunk=16", "sequence=64")


def test_a_step_on_one_chip():
    plan = predict(job("yaad", *WORDS, "data.batch=2"))
    assert plan.products == pytest.approx(plan.flops.dense / (CHIP.flops * CHIP.efficiency))
    assert plan.kernels == pytest.approx(plan.flops.in_memories / (CHIP.flops * CHIP.small))
    assert plan.traffic == []
    assert plan.step == pytest.approx(max(plan.products, plan.hbm) + plan.kernels)
    assert plan.tokens_per_second == pytest.approx(128 / plan.step)
    assert plan.hours(128) == pytest.approx(plan.step / 3600)
    assert plan.utilisation == pytest.approx(plan.flops.model / plan.step / CHIP.flops)
    assert plan.fits


@pytest.mark.parametrize(("space", "told"), [(2.0, "yes"), (1.1, "barely"), (0.9, "no")])
def test_what_fits_by_less_than_the_error_of_the_estimate_is_told(space, told):
    peak = predict(job("yaad", *WORDS, "data.batch=2")).memory.peak
    config = job("yaad", *WORDS, "data.batch=2").config
    small = dataclasses.replace(CHIP, hbm=space * peak)
    plan = predict(Job(config, planned_slice("cpu", {"cpu": small})))
    assert (plan.fits, plan.fits_barely) == (told != "no", told == "barely")
    assert any("may be wrong" in line for line in notes([plan])) == (told == "barely")


def test_attention_is_slower_than_other_products():
    plan = predict(job("transformer++", *WORDS, "data.batch=2"))
    share = plan.flops.attention / plan.flops.forward
    rate = CHIP.flops * CHIP.efficiency
    expected = plan.flops.dense / rate * (1 + share * (1 / ATTENTION - 1))
    assert plan.products == pytest.approx(expected)
    assert plan.kernels == 0


def test_collectives_of_weights_gradients_and_activations():
    found = job(
        "yaad",
        *WORDS,
        "data.batch=16",
        "mesh.fsdp=8",
        "mesh.tensor=2",
        "dtype=bfloat16",
        on="v5e-16",
    )
    by_kind = {(x.kind, x.axis): x for x in step_traffic(found)}
    assert set(by_kind) == {
        ("all-gather", "fsdp"),
        ("reduce-scatter", "fsdp"),
        ("all-reduce", "tensor"),
    }
    gathered = by_kind["all-gather", "fsdp"]
    split = [x for x in found.leaves if x.path[0] == "params" and "fsdp" in x.split]
    numbers = sum(x.size // (2 if "tensor" in x.split else 1) for x in split)
    assert gathered.bytes == 2 * 2 * numbers  # forward and backward, bfloat16
    assert gathered.seconds == pytest.approx(
        gathered.bytes * 7 / 8 / bandwidth(found.slice, found.sizes, "fsdp")
    )
    assert by_kind["reduce-scatter", "fsdp"].bytes == 4 * numbers
    activations = by_kind["all-reduce", "tensor"]
    assert activations.bytes == 2 * 3 * 2 * (2 * 64 * 64 * 2)  # ends of mixers, passes, layers
    assert not activations.hidden
    # Twice (n - 1) / n of the bytes: once to add them up, once to give them back.
    rate = bandwidth(found.slice, found.sizes, "tensor")
    assert activations.seconds == pytest.approx(2 * activations.bytes / 2 / rate)


def test_slices_exchange_gradients_over_the_network():
    words = ("data.batch=8", "mesh.slices=2", "mesh.data=2")
    found = job("yaad", *WORDS, *words, on="2xv5e-4")
    (between,) = (x for x in step_traffic(found) if x.axis == "slices")
    local = sum(x.local for x in found.leaves if x.path[0] == "params")
    assert between.bytes == local
    assert between.seconds == pytest.approx(local / 3.125e9)  # 2 (n - 1) / n of two slices
    assert not any(x.axis == "data" for x in step_traffic(found))


def test_links_of_an_axis():
    ring = job("yaad", *WORDS, "data.batch=256", on="v5e-256")
    assert bandwidth(ring.slice, ring.sizes, "fsdp") == 4 * 50e9  # both directions of two rings
    line = job("yaad", *WORDS, "data.batch=16", on="v5e-16")
    assert bandwidth(line.slice, line.sizes, "fsdp") == 2 * 50e9  # 4 x 4 is closed to no ring
    hosts = job("yaad", *WORDS, "data.batch=16", on="h100-16")
    assert bandwidth(hosts.slice, hosts.sizes, "fsdp") == 50e9  # leaves the host


@pytest.mark.parametrize("case", CASES, ids=key)
def test_cycles_of_kernels_against_their_compiled_schedules(case):
    row = json.loads(RESULTS.read_text())[key(case)]
    name, *changes = case.rule.split()
    config = override(preset(name), *changes)
    options = ScanOptions(chunk=case.chunk, exact=config.exact)
    units = CHIPS["v5e"].units
    assert units is not None
    found = kernels.cycles(config.rule, options, config.layer, case.width, units)
    assert 0.6 < found.forward / row["training"] < 1.4
    assert (0.6 if case.chunk >= 32 else 0.5) < found.backward / row["backward"] < 1.4
