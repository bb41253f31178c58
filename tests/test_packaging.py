"""The distribution: its name, and what the repository tells users to install."""

import ast
import contextlib
import email
import pathlib
import re
import tomllib
import zipfile

import hatchling.build
import pytest
import yaml

import miras

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
    assert PROJECT["scripts"] == {"miras": "miras.cli.main:main"}


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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel, opened."""
    folder = tmp_path_factory.mktemp("wheel")
    with contextlib.chdir(ROOT):
        name = hatchling.build.build_wheel(str(folder))
    assert name.startswith("miras_jax-")
    with zipfile.ZipFile(folder / name) as opened:
        yield opened


def test_the_wheel_has_types_and_no_more_than_the_package(wheel):
    names = wheel.namelist()
    assert "miras/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"miras", "miras_jax"}


def test_a_package_page_has_no_link_that_leads_nowhere(wheel):
    (path,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    metadata = email.message_from_bytes(wheel.read(path))
    assert metadata["Name"] == "miras-jax"
    page = metadata.get_payload()
    targets = re.findall(r"\]\(([^)]+)\)|(?:href|src)=\"([^\"]+)\"", page)
    urls = [target for pair in targets for target in pair if target]
    urls += [url.split(", ")[1] for url in metadata.get_all("Project-URL")]
    assert len(urls) >= 3
    assert all(url.startswith("https://") for url in urls)


def test_what_needs_no_extra_is_imported_without_one(wheel):
    """Packages of extras are imported where they are used, and not before."""
    modules = [name for name in wheel.namelist() if name.endswith(".py")]
    extras = {"tokenizers", "sentencepiece", "hypothesis", "pytest", "torch", "transformers"}
    for name in modules:
        tree = ast.parse(wheel.read(name))
        for node in tree.body:  # those of the module itself
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not extras & {found.split(".")[0] for found in names}, name


def test_the_citation_names_the_version_and_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The miras authors"}]
    assert citation["version"] == miras.__version__
    assert citation["license"] == PROJECT["license"]
    papers = [reference["url"] for reference in citation["references"]]
    assert papers == list(PROJECT["urls"].values())
