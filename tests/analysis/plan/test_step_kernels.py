"""Cycles of the kernels that a compiled step has, from their schedules."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import miras
from benchmarks.tpu_schedule import RESULTS, Case, case_of, key
from miras.analysis.plan import schedule
from miras.analysis.plan.chips import CHIPS
from miras.analysis.plan.compiled import Compiled
from miras.analysis.plan.predict import FITTED, predict
from miras.analysis.plan.scheduled import scheduled
from miras.analysis.plan.step_kernels import StepKernel, step_kernels
from miras.backends.pallas.interpreter import interpreted
from miras.backends.pallas.trace.jaxprs import equations, in_avals, out_avals
from tests.analysis.plan.jobs import job

LOOP = "     0x{at:x} LB: >> {{ %1 = vmul }}\n" + "     0x{at:x}   : >> {{ %2 = vadd }}\n" * 9
PLAN = ("layers=4", "width=64", "heads=4", "vocab=512", "chunk=16", "sequence=64", "data.batch=16")


def _kernels(tokens: int):
    """A gradient of small kernels, traced: its jaxpr, and the equations of the kernels."""
    rule, options, shapes = case_of(
        Case("titans_lmm memory=matrix", "float32", 8, 8), heads=1, tokens=tokens
    )
    with interpreted("tpu"):
        traced = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(miras.scan(rule, *x, **options)[0])))(
            shapes
        )
    calls = [x for x in equations(traced.jaxpr) if x.primitive.name == "pallas_call"]
    return traced.jaxpr, calls


def _text(calls, layers: int) -> str:
    """A program that runs kernels in a loop over layers, as the compiler for TPUs writes it."""
    lines = []
    for n, call in enumerate(calls):
        operands, results = (
            ", ".join(f"f32[{','.join(map(str, x.shape))}]{{0}}" for x in avals(call))
            for avals in (in_avals, out_avals)
        )
        lines.append(
            f"  %{call.params['name']}.{n} = ({results}) custom-call(%x), "
            'custom_call_target="tpu_custom_call", '
            f"operand_layout_constraints={{{operands}}}, frontend_attributes={{a={{}}}}"
        )
    return "\n".join(
        [
            "%cond (p: (s32[])) -> pred[] {",
            f"  %n = s32[]{{:T(128)}} constant({layers})",
            "  ROOT %lt = pred[] compare(%i, %n), direction=LT",
            "}",
            "%body (p: (s32[])) -> (s32[]) {",
            *lines,
            "}",
            "ENTRY %main (p: f32[8]) -> f32[8] {",
            "  %w = (s32[]) while(%t), condition=%cond, body=%body",
            "}",
        ]
    )


def _dump(folder, calls, loops: dict[str, int]) -> None:
    """Listings: 5 bundles of a grid step, and loops of 10."""
    for n, call in enumerate(calls):
        name = call.params["name"]
        grid = "   0x1 LB: > { %1 = vld }\n" + "   0x2   : > { %2 = vst }\n" * 4
        listing = grid + "".join(LOOP.format(at=16 + i) for i in range(loops[name]))
        (folder / f"1796-{name}.{n}-01-final_bundles.txt").write_text(listing)
        (folder / f"1796-{name}.{n}-00-schedule-analysis_final_bundles.txt").write_text("none")


def test_loops_in_a_grid_step_count_as_often_as_they_run(tmp_path):
    """20 chunks in groups of 8, 8 and 4, of which the last is the first one backward."""
    jaxpr, calls = _kernels(160)
    _dump(tmp_path, calls, {"miras_forward": 1, "miras_backward": 2})
    forward, backward = step_kernels(jaxpr, _text(calls, layers=6), tmp_path)
    assert forward[:4] == ("miras_forward.0", 6, 1, 3)
    assert backward[:4] == ("miras_backward.1", 6, 1, 3)
    assert (forward.backward, backward.backward) == (False, True)
    assert forward.cycles(1) == pytest.approx(6 * (3 * 5 + 20 * 10))
    assert backward.cycles(1) == pytest.approx(6 * (3 * 5 + (20 - 3) * 10 + 20 * 10))


def test_what_cannot_be_read_is_an_error(tmp_path):
    jaxpr, calls = _kernels(160)
    text = _text(calls, layers=6)
    with pytest.raises(ValueError, match=r"dumped no schedule of miras_forward\.0"):
        step_kernels(jaxpr, text, tmp_path)
    _dump(tmp_path, calls, {"miras_forward": 2, "miras_backward": 2})
    with pytest.raises(ValueError, match="has 2 loops in a grid step, not 1"):
        step_kernels(jaxpr, text, tmp_path)
    with pytest.raises(ValueError, match=r"0 kernels of the traced step may be miras_forward\.0"):
        step_kernels(_kernels(80)[0], text, tmp_path)


def test_cores_share_the_rows():
    kernel = StepKernel("miras_backward.1", calls=4, rows=5, groups=3, bundles=100.0)
    assert kernel.cycles(1) == 4 * 5 * 3 * 100
    assert kernel.cycles(2) == 4 * 3 * 3 * 100


def _compiled(*kernels: StepKernel, unscheduled: str = "") -> Compiled:
    return Compiled("", 1, {}, [], [], 1.0, [each._asdict() for each in kernels], unscheduled)


def test_a_plan_takes_the_compiled_kernels_time_and_says_how_far_the_fit_is():
    plan = predict(job("yaad", *PLAN, on="v5p-8"))
    kernels = (
        StepKernel("miras_forward.1", 4, 6, 2, 1e5),
        StepKernel("miras_backward.1", 4, 6, 2, 3e5),
    )
    found = scheduled(plan, _compiled(*kernels))
    chip = CHIPS["v5p"]
    assert found.kernels == pytest.approx(4 * 3 * 2 * 4e5 / chip.clock)
    assert found.fitted == plan.kernels
    assert found.step - found.kernels == pytest.approx(plan.step - plan.kernels)
    (told,) = (text for text in found.assumptions if "compiled step's own kernels" in text)
    assert f"{plan.kernels / found.kernels:.2f} times as much" in told
    assert FITTED not in found.assumptions


def test_the_fit_stays_and_says_why_where_no_schedule_is_known():
    plan = predict(job("yaad", *PLAN, on="v5p-8"))
    assert FITTED in plan.assumptions
    assert scheduled(plan, None) == plan
    few = _compiled(StepKernel("miras_backward.1", 3, 6, 2, 3e5))
    for found, why in (
        (few, "3 backward kernels for 4 memories"),
        (_compiled(unscheduled="no listing"), "no listing"),
    ):
        fit = scheduled(plan, found)
        assert (fit.kernels, fit.fitted) == (plan.kernels, None)
        assert any(FITTED in text and why in text for text in fit.assumptions)


def _schedules(folder, heads: int, tokens: int, *cases: Case) -> list[dict[str, float]]:
    """Bundles that a token of a head takes, by kernel, from the TPU's compiler."""
    child = [sys.executable, "-m", "tests.analysis.plan.compile_kernels", str(folder)]
    child += [str(heads), str(tokens), *map(key, cases)]
    environment = os.environ | {
        "LIBTPU_INIT_ARGS": schedule.FLAGS.format(folder),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
    }
    done = subprocess.run(child, env=environment, check=True, stdout=subprocess.PIPE)
    return [
        {
            "backward" if kernel.backward else "training": kernel.cycles(1) / (heads * tokens)
            for kernel in (StepKernel(**each) for each in of_case)
        }
        for of_case in json.loads(done.stdout.splitlines()[-1])
    ]


@pytest.mark.slow
@pytest.mark.tpu_aot
@pytest.mark.multiprocess
@pytest.mark.usefixtures("libtpu")
def test_kernels_of_a_kept_row_take_the_bundles_that_are_kept(tmp_path):
    case = Case("yaad", "float32", 64, 64)
    kept = json.loads(RESULTS.read_text())[key(case)]
    (found,) = _schedules(tmp_path, 4, 256, case)
    assert found == pytest.approx({name: kept[name] for name in found}, rel=0.05)
    assert set(found) == {"training", "backward"}


@pytest.mark.tpu_aot
@pytest.mark.multiprocess
@pytest.mark.usefixtures("libtpu")
def test_a_rule_that_is_in_no_kept_row_has_a_schedule_of_its_own(tmp_path):
    """Moneta's power of the error is 3 where nothing is said; one of 2.5 is no product."""
    cases = [Case(f"moneta bias.p={p}", "float32", 16, 16) for p in (3.0, 2.5)]
    integer, fraction = _schedules(tmp_path, 1, 128, *cases)
    for passes in ("training", "backward"):
        assert 1.0 < fraction[passes] / integer[passes] < 2
