"""Fills docs/cli.md with the commands of the parser, when the site is built."""

import argparse
import html
import re

from miras.cli.main import build_parser

MARK = "<!-- commands -->"
SHARED = ("--help", "--plugin", "--trust-plugins")  # described once, at the top of the page


def on_page_markdown(markdown: str, **_) -> str:
    """Replace the mark; mkdocs calls this for every page."""
    return markdown.replace(MARK, commands()) if MARK in markdown else markdown


def commands() -> str:
    """All commands as Markdown, a section each."""
    actions = build_parser()._actions
    (group,) = (a for a in actions if isinstance(a, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in group._get_subactions()}
    return "\n\n".join(
        _section(name, parser, summaries[name]) for name, parser in group.choices.items()
    )


def _section(name: str, parser: argparse.ArgumentParser, summary: str) -> str:
    lines = [f"## miras {name}", "", _sentence(parser.description or summary), ""]
    rows = [_row(a) for a in parser._actions if not set(a.option_strings) & set(SHARED)]
    if rows:
        lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    if parser.epilog:
        lines += [_text(parser.epilog)]
    return "\n".join(lines)


def _row(action: argparse.Action) -> str:
    metavar = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    values = metavar if isinstance(metavar, str) else " ".join(metavar)
    name = " ".join([*action.option_strings[-1:], values]).strip()
    return f"| `{name}` | {_text(action.help or '')} |"


def _sentence(text: str) -> str:
    text = _text(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _text(text: str) -> str:
    """argparse's text as Markdown: outside of code, nothing in it is markup."""
    parts = re.split(r"(`[^`]*`)", text.replace("%%", "%"))
    plain = [
        html.escape(p, quote=False).replace("*", r"\*").replace("_", r"\_") for p in parts[::2]
    ]
    parts[::2] = plain
    return "".join(parts).replace("|", r"\|")
