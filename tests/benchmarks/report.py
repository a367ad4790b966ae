"""Tables of the benchmarks: printed, and written into a page of the documentation between the marks that name them.

It knows nothing of what was measured. A table `masks-json` stands in the page between `<!-- masks-json -->` and
`<!-- /masks-json -->`; what is around it is written by hand, and tables that were not run stay as they are.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PAGE", "TABLES", "Report", "losses", "machine", "replaced", "with_ratio"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
MASKS = ("json", "sql_select", "sygus_lia", "arithmetic", "mail", "time", "record")
TABLES = (
    "startup",
    *(f"masks-{name}" for name in MASKS),
    "processor",
    "transformers",
    "guidance",
    "drafts",
    "automata",
    "lookahead-step",
    "lookahead-products",
    "lookahead-candidates",
    "lookahead-table",
    "trie",
    "samplers",
    "e-step",
    "hmm-peers",
    "e-step-memory",
    "growth-vocabulary",
    "growth-grammar",
    "growth-lookahead",
    "growth-asap",
)


@dataclass
class _Table:
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list["Sequence[str]"])
    notes: list[str] = field(default_factory=list[str])
    packages: list[str] = field(default_factory=list[str])

    def text(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in dict.fromkeys(self.packages))
        made = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {machine()}" + (f", {versions}" if versions else "")
        return "\n\n".join([table, *dict.fromkeys(self.notes), f"*{made}.*"])


class Report:
    """The tables of a run.

    Args:
        page: the file that tables are written into as soon as they are there; None only prints them.
    """

    def __init__(self, page: Path | None = None) -> None:
        self.page = page
        self._tables: dict[str, _Table] = {}

    def add(
        self,
        name: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        notes: Sequence[str] = (),
        packages: Sequence[str] = (),
    ) -> None:
        """A table, or more rows of one.

        Args:
            name: one of `TABLES`, as the marks in the page say.
            columns: heads, the same at every call for a table.
            rows: one cell a column.
            notes: paragraphs below it, such as `losses`; one that is given again stands there once.
            packages: those whose versions are named, beside Python and torch.

        Raises:
            ValueError: a row is not as wide as the head, or the name is not known, or the page has no such marks.
        """
        if name not in TABLES:
            raise ValueError(
                f"{name!r} is not among the tables of the benchmarks; add it to TABLES and its marks to {PAGE.name}"
            )
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"{name}: rows of {sorted({len(row) for row in rows})} cells below {len(columns)} heads")
        table = self._tables.setdefault(name, _Table(columns))
        table.rows += rows
        table.notes += [note for note in notes if note]
        table.packages += packages
        text = table.text()
        print(f"\n\n{name}\n\n{text}\n")
        if self.page is not None:
            page = self.page.read_text(encoding="utf-8")
            self.page.write_text(replaced(page, name, text), encoding="utf-8")


def replaced(page: str, name: str, text: str) -> str:
    """The page with the text between the marks of a name.

    Raises:
        ValueError: there are no marks of that name, or more than one pair.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page needs one {begin} with {end} behind it, where the table shall stand")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def with_ratio(figure: float, ours: float) -> str:
    """A peer's figure, and how many times ours it is."""
    return f"{figure:.1f} ({float(f'{figure / ours:.2g}'):,g}×)"


def losses(ours: Mapping[str, float], peers: Mapping[str, Mapping[str, float]]) -> str:
    """A line that says where a peer needs less than we do, and how many times less.

    Args:
        ours: what was measured -> the figure, less being better.
        peers: name -> the same; figures that are missing are not compared.
    """
    found = [
        f"{what}: {own / theirs[what]:.2g} times {name}"
        for what, own in ours.items()
        for name, theirs in peers.items()
        if what in theirs and own > theirs[what]
    ]
    return "Where we lose: " + ("; ".join(found) if found else "nowhere in this table") + "."


def machine() -> str:
    """Processor, cores, load and versions, for the line below a table."""
    import torch

    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({name}), load {load:.1f}, {torch.get_num_threads()} torch threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def commit() -> str:
    """The commit that is checked out, with a plus if the package or the benchmarks are changed; "unknown" without git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=7", "--exclude=*"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--", "ctrldecode", "tests/benchmarks", "grammars", "hmm"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + "+" * bool(changes)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
