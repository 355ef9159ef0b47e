"""Pages of the documentation that are generated from the package, and files of the repository that it shows.

mkdocs calls these functions while it builds the site.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from mkdocs.structure.files import File, Files

import sgdscope
from sgdscope import cli
from sgdscope.advice.advice import COSTS_COLUMNS, LEADS_COLUMNS
from sgdscope.advice.next_trials import FURTHER_COLUMNS
from sgdscope.advice.predicted_rates import RATES_COLUMNS
from sgdscope.advice.recommended import RECOMMENDED_COLUMNS
from sgdscope.advice.timing import SECONDS_COLUMNS
from sgdscope.analysis.tables import COLUMNS
from sgdscope.claims.decide import CLAIMS, CLAIMS_COLUMNS, ZONES
from sgdscope.comparison.comparison import COLUMNS as COMPARISON_TABLES

ROOT = Path(__file__).parent.parent
# As many columns as a page is wide.
HELP_WIDTH = 86
RESULT_TABLES = COLUMNS | {"claims": CLAIMS_COLUMNS}
ADVICE_TABLES = {
    "recommended": RECOMMENDED_COLUMNS,
    "costs": COSTS_COLUMNS,
    "leads": LEADS_COLUMNS,
    "rates": RATES_COLUMNS,
    "seconds": SECONDS_COLUMNS,
    "further": FURTHER_COLUMNS,
}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the files of the repository that pages show or link to."""
    pages = {
        "reference/command-line.md": command_line(),
        "reference/python.md": python(),
        "reference/tables.md": tables(),
        "claims.md": claims(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "]("),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    for path in sorted((ROOT / "results").rglob("*.*")):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Show examples that a page links in a line of their own, and make links to results links within the site."""
    code: Callable[[re.Match[str]], str] = lambda file: f"```python\n{(ROOT / file[1]).read_text()}```"
    markdown = re.sub(r"^\[`(examples/\S+\.py)`\]\(\S+\)$", code, markdown, flags=re.MULTILINE)
    return markdown.replace("](../results/", "](results/").replace("](../../results/", "](../results/")


def on_post_build(config: Any) -> None:
    """Refuse a site that would load anything from the network."""
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        if found := re.search(r'<(?:script|link|img)[^>]*(?:src|href)="?https?://[^>]*>', path.read_text()):
            raise ValueError(f"{path} loads from the network: {found[0]}")


def command_line() -> str:
    """Return the page of the command line: the help of every command."""
    names = [kind.__name__.lower() for kind in get_args(cli.Command)]
    text = [(ROOT / "docs" / "reference" / "command-line.intro").read_text()]
    for name in names:
        commands = [f"data {command}" for command in cli.DATA_COMMANDS] if name == "data" else [name]
        text += [f"## `sgdscope {command}`\n```text\n{help_of(command.split())}\n```\n" for command in commands]
    return "\n".join(text)


def help_of(command: list[str]) -> str:
    """Return what ``--help`` prints for a command."""
    said = io.StringIO()
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ |= {"COLUMNS": str(HELP_WIDTH), "NO_COLOR": "1"}
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            cli.main([*command, "--help"])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return re.sub(r"\x1b\[[\d;]*m", "", said.getvalue()).strip()


def python() -> str:
    """Return the page of the Python interface: the public names, under the headings of the package's docstring."""
    text = [(ROOT / "docs" / "reference" / "python.intro").read_text()]
    shown = {"studies", "workloads"}
    for group, names in re.findall(r"^([A-Z][\w ]+): (.+)$", sgdscope.__doc__ or "", re.MULTILINE):
        listed = [name for name in names.split(", ") if name in sgdscope.__all__]
        if listed:
            text.append(f"## {group}\n")
        text += [f"::: sgdscope.{name}\n" for name in listed]
        shown |= set(listed)
    if missing := set(sgdscope.__all__) - shown:
        raise ValueError(f"the docstring of sgdscope does not list {', '.join(sorted(missing))}")
    text += ["## Built-in studies and workloads\n", named("sgdscope.studies.get", "studies.get")]
    for name in sgdscope.workloads.__all__:
        home = getattr(sgdscope.workloads, name).__module__
        text.append(named(f"{home}.{name}", f"workloads.{name}"))
    return "\n".join(text)


def named(path: str, heading: str) -> str:
    """Return the reference of an object under the name by which users call it."""
    return f"::: {path}\n    options:\n      heading: {heading}\n      toc_label: {heading}\n"


def tables() -> str:
    """Return the page of tables: every column with its type, unit and description."""
    text = [(ROOT / "docs" / "reference" / "tables.intro").read_text(), "## Tables of a result\n"]
    text += [table(name, f"result.{name}", columns) for name, columns in RESULT_TABLES.items()]
    text.append("## Tables of a recommendation\n")
    text += [table(name, f"advice.{name}", columns) for name, columns in ADVICE_TABLES.items()]
    text.append("## Tables of a comparison\n")
    text += [table(name, f"comparison.{name}", columns) for name, columns in COMPARISON_TABLES.items()]
    return "\n".join(text)


def table(name: str, access: str, columns: Any) -> str:
    """Return one table's section."""
    rows = [
        f"| `{column}` | {of.description.replace('|', chr(92) + '|')} | {of.unit or '–'} | {of.dtype} |"
        for column, of in columns.items()
    ]
    head = "| column | meaning | unit | type |\n| --- | --- | --- | --- |"
    return "\n".join([f"### `{name}` {{ #{name} }}\n", head, *rows, ""])


def claims() -> str:
    """Return the page of claims: each with its rule and figure."""
    rows = "\n".join(
        f"| {name} | {claim.sentence} | {claim.rule} | "
        + (f"[{claim.figure}](figures.md#{claim.figure})" if claim.figure else "–")
        + f" | {claim.needs} |"
        for name, claim in CLAIMS.items()
    )
    page = (ROOT / "docs" / "claims.intro").read_text()
    return page.replace("{{ claims }}", rows).replace("{{ zones }}", ZONES)
