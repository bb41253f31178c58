"""The distribution: its name, and what the repository tells users to install."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXTS = [
    path
    for suffix in (".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cff", ".sh", ".json")
    for path in sorted(ROOT.rglob(f"*{suffix}"))
    if not {"runs", "site", "dist"} & set(path.relative_to(ROOT).parts)
    and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]
TEXTS += [ROOT / "Makefile", ROOT / ".ci" / "run"]
# The package index has a stranger's project under the import's name.
STRANGER = re.compile(r"""pip install[^\n]*?['"\s]miras(?![-\w./])|['"`\s]miras\[[a-z]""")


def test_the_distribution_has_a_name_of_its_own():
    assert PROJECT["name"] == "miras-jax"
    assert PROJECT["scripts"] == {"miras": "miras.cli:main"}


@pytest.mark.parametrize(
    "text",
    [
        "pip install miras",
        "pip install 'miras[cuda]'",
        '"miras[tpu]"',
        "pip install -U miras",
        "pip install 'miras>=1'",
    ],
)
def test_the_pattern_finds_what_would_install_a_stranger(text):
    assert STRANGER.search(text)


def test_nothing_tells_users_to_install_the_stranger():
    assert len(TEXTS) > 200
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in TEXTS
        if path != pathlib.Path(__file__)
        for match in [STRANGER.search(path.read_text(errors="replace"))]
        if match
    }
    assert not found
