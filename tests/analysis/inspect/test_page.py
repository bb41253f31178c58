"""The page in a headless Chromium: what it shows, and what pointing, keys and choices do."""

import io
import json

import numpy as np
import pytest
from matplotlib import image

from miras.analysis.inspect.page import Heading, page
from miras.analysis.inspect.token_text import visible_tokens
from miras.analysis.inspect.trace import Trace
from miras.data import make_tokenizer
from miras.models import LanguageModelConfig
from tests.analysis.inspect.browser import opened

TEXT = "def f():\n  return '</script><b id=bad>' # ü\n"
BYTES = make_tokenizer("byte")
IDS = [BYTES.bos_id, *BYTES.encode(TEXT).tolist()]
LAYERS, HEADS = (0, 2), 3
NAMES = ("surprise", "error", "kept", "norm", "lr", "decay")
FACTS = ("run <i>", "7", "matrix")


def made() -> Trace:
    """Numbers from 1e-5 to 1e5, some of them none."""
    rng = np.random.default_rng(0)
    size = len(IDS), len(LAYERS), HEADS
    values = {name: 10.0 ** rng.uniform(-5, 5, size) for name in NAMES}
    values["kept"][5] = np.nan
    values["decay"][:] = 1.0
    loss = np.concatenate([[np.nan], rng.exponential(3, len(IDS) - 1)])
    return Trace(np.asarray(IDS), loss, LAYERS, values)


@pytest.fixture(scope="module")
def found():
    return made()


@pytest.fixture(scope="module")
def browser(found, tmp_path_factory):
    """The page, open for all tests; each begins with `fresh`."""
    folder = tmp_path_factory.mktemp("page")
    heading = Heading("run <i>", 7, LanguageModelConfig(layers=3, pattern="MSM"))
    path = folder / "inspect.html"
    path.write_text(page(heading, found, visible_tokens(BYTES, IDS)), "utf-8")
    with opened(folder / "profile") as browser:
        browser.look()
        browser.path = path
        yield browser


@pytest.fixture
def fresh(browser):
    browser.open(browser.path)
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == [browser.path.as_uri()]


def table(browser) -> dict[str, list[float | None]]:
    """The numbers of the chosen token by measure: of each head, then their mean."""
    rows = browser.run(
        "[...document.querySelectorAll('#values tbody tr')].map(row => [row.dataset.measure,"
        "[...row.querySelectorAll('td')].map(cell => cell.title)])"
    )
    number = lambda text: None if text == "none" else float(text)  # noqa: E731
    return {name: [number(text) for text in cells] for name, cells in rows}


def check_table(browser, trace: Trace, t: int, layer: int) -> None:
    shown = table(browser)
    assert list(shown) == list(NAMES)
    for name, values in trace.values.items():
        for got, want in zip(shown[name], values[t, layer]):
            assert got is None if np.isnan(want) else got == pytest.approx(want, rel=1e-3)
        mean = values[t, layer].mean()
        assert shown[name][-1] == (None if np.isnan(mean) else pytest.approx(mean, rel=1e-3))


def caption(browser) -> str:
    return browser.run("document.querySelector('#values caption').innerText")


def choose(browser, name: str, value: object) -> None:
    code = f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change')) }})"
    browser.run(f"{code}(document.querySelector('#{name}'))")


def picture(browser) -> list[str]:
    """Colours of the tokens, and the chart's lines."""
    return browser.run(
        "[...document.querySelectorAll('#text > span')].map(e => e.style.background)"
        ".concat([...document.querySelectorAll('#chart path')].map(e => e.getAttribute('d')))"
    )


def test_it_shows_the_text_and_what_the_run_is(fresh):
    shown = "document.querySelector('#text').textContent"
    assert fresh.run(shown) == "".join(visible_tokens(BYTES, IDS))
    assert fresh.run("document.querySelector('#bad')") is None
    head = fresh.run("document.querySelector('header').innerText")
    assert all(fact in head for fact in FACTS)
    assert fresh.run("document.title") == "run <i> · miras inspect"
    meanings = fresh.run("document.querySelectorAll('#meanings dt').length")
    assert meanings == len(NAMES) + 1


def test_pointing_at_a_token_shows_its_numbers_and_marks_it_everywhere(fresh, found):
    where = "[document.querySelector('#chart .cross').getAttribute('x1'),"
    where += "document.querySelector('#across').style.left]"
    places = []
    for t in (17, 5, 30):
        fresh.point(f"#t{t}")
        check_table(fresh, found, t, layer=0)
        assert f"token {t}" in caption(fresh)
        assert f"{found.loss[t]:.4g}"[:4] in caption(fresh)
        assert fresh.run("[...document.querySelectorAll('.on')].map(e => e.id)") == [f"t{t}"]
        places.append(tuple(fresh.run(where)))
    assert len(set(places)) == 3
    left = fresh.run("document.querySelector('#text').getAttribute('aria-activedescendant')")
    assert left == "t30"


def test_a_click_pins_and_escape_lets_go(fresh):
    fresh.click("#t3")
    fresh.point("#t9")
    assert "token 3" in caption(fresh)
    assert "pinned" in caption(fresh)
    fresh.press("Escape")
    fresh.point("#t9")
    assert "token 9" in caption(fresh)


def test_keys_walk_over_the_tokens(fresh, found):
    fresh.run("document.querySelector('#text').focus()")
    for key, t in {"ArrowRight": 1, "ArrowLeft": 0, "End": len(IDS) - 1, "Home": 0}.items():
        fresh.press(key)
        assert f"token {t} " in caption(fresh)
        check_table(fresh, found, t, layer=0)
    assert "not predicted" in caption(fresh)


def test_measure_layer_and_head_change_the_picture(fresh, found):
    seen = [picture(fresh)]
    fresh.click("#measures label:nth-of-type(3)")
    seen.append(picture(fresh))
    assert seen[-1][5] == "transparent"  # the token without a value
    for name, value in {"layer": "1", "head": "2"}.items():
        choose(fresh, name, value)
        dimmed = fresh.run("document.querySelectorAll('.dim').length")
        seen.append([*picture(fresh), dimmed])
    assert len(set(map(str, seen))) == 4
    assert seen[-1][-1] == HEADS - 1
    check_table(fresh, found, 0, layer=1)
    assert "layer 3" in caption(fresh)

    fresh.click("#measures label:last-of-type")
    assert fresh.run("document.querySelectorAll('#chart path').length") == 1
    assert fresh.run("document.querySelector('#overview').hidden")
    assert fresh.run("document.querySelector('#head').disabled")
    assert picture(fresh)[0] == "transparent"  # the start is not predicted


def test_the_strips_choose_a_layer_and_a_head(fresh, found):
    box = fresh.run(
        "(e => [e.left, e.top, e.width, e.height])"
        "(document.querySelector('#strips').getBoundingClientRect())"
    )
    fresh.click_at(box[0] + box[2] * 20.5 / len(IDS), box[1] + box[3] - 2)
    chosen = "['layer', 'head'].map(name => document.getElementById(name).value)"
    assert fresh.run(chosen) == ["1", str(HEADS - 1)]
    assert "token 20 " in caption(fresh)
    check_table(fresh, found, 20, layer=1)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_drawn_and_fits(fresh, width, dark):
    seen = image.imread(io.BytesIO(fresh.look(width, 1800, dark)))
    assert seen.shape[:2] == (1800, width)
    ground = seen[2, 2, :3].mean()
    assert ground < 0.2 if dark else ground > 0.9
    colours = np.unique((seen[..., :3] * 255).astype(int).reshape(-1, 3), axis=0)
    assert len(colours) > 100
    assert fresh.run("document.documentElement.scrollWidth") <= width
    fresh.look()
