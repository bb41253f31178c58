"""Adds the figures of experiments/results/ to the site; pages link to them in the repository."""

import pathlib

from mkdocs.structure.files import File

RESULTS = pathlib.Path(__file__).parents[1] / "experiments" / "results"
SITE = "assets/results"


def on_files(files, config, **_):
    """Copy every figure into the site; mkdocs calls this once."""
    for path in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"{SITE}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Point a page's links to the copies; mkdocs calls this for every page."""
    return markdown.replace("](../experiments/results/", f"]({SITE}/")
