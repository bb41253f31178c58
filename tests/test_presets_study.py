"""The study of presets side by side: a short one is told whole and goes on where it stopped."""

import json

import pytest

from experiments import presets

SMALL = (
    "model.layers=1",
    "model.width=64",
    "model.heads=2",
    "data.batch=2",
    "train.eval_batches=8",
)


def argv(results, *names):
    return ["--only", *names, "--steps", "2", "--results", str(results), *SMALL]


@pytest.mark.slow
def test_a_short_study_is_told_and_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(presets, "SEEDS", {"retnet": 2})
    presets.main(argv(tmp_path, "retnet", "tnt_yaad"))
    path = tmp_path / "presets.jsonl"
    rows = presets.read(path)
    assert [(row["preset"], row["seed"]) for row in rows] == [
        ("retnet", 0), ("tnt_yaad", 0), ("retnet", 1)
    ]  # fmt: skip
    assert len({row["text"] for row in rows}) == 1  # whatever the chunk and the seed
    assert len({row["bits_per_byte"] for row in rows}) == 3
    assert all(abs(row["parameters"] / row["budget"] - 1) < 0.01 for row in rows)
    assert presets.table(rows) in capsys.readouterr().out
    assert (tmp_path / "presets.png").stat().st_size > 5_000

    path.write_text("".join(f"{line}\n" for line in reversed(path.read_text().splitlines()[1:])))
    ran = []

    def again(config, parameters):
        ran.append((config.data.seed, parameters))
        return {key: value for key, value in rows[0].items() if key not in ("preset", "seed")}

    monkeypatch.setattr(presets, "run", again)
    presets.main(argv(tmp_path, "retnet", "tnt_yaad"))
    assert ran == [(0, rows[0]["budget"])]  # the one that is missing
    presets.main([*argv(tmp_path, "retnet"), "--again"])
    assert len(ran) == 3


def row(preset, seed, bits, **other):
    kept = {"command": "c", "text": "t", "budget": 1000, "parameters": 1000, "growth_bytes": 0}
    costs = {"state_bytes": 2048, "flops_per_token": 1e6}
    return kept | costs | {"preset": preset, "seed": seed, "bits_per_byte": bits} | other


def test_the_table_has_means_with_their_range_and_nothing_of_other_texts(tmp_path):
    rows = [
        row("moneta", 0, 1.0, text="of another Python"),
        row("retnet", 0, None),
        row("hope", 0, 2.5),
        row("yaad", 0, 2.0),
        row("hope", 1, 2.25),
        row("yaad", 0, 2.6, growth_bytes=1024),
    ]
    path = tmp_path / "presets.jsonl"
    path.write_text("".join(json.dumps(x) + "\n" for x in rows))
    assert presets.table(presets.comparable(presets.read(path))).splitlines()[2:] == [
        "| `hope` | 2 | 2.375 (2.250-2.500) | 1,000 | 2 KiB | 1.0 M |",
        "| `yaad` | 1 | 2.600 | 1,000 | 1 KiB per token | 1.0 M |",
        "| `retnet` | 1 | NaN | 1,000 | 2 KiB | 1.0 M |",
    ]
