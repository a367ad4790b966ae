"""What the documentation shows: its Python blocks, the commands that stand in blocks, and those that stand in sentences."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

__all__ = ["PAGES", "ROOT", "TEXTS", "answers", "blocks", "lines", "mentions", "prints", "shown", "words_of"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "ctrldecode" / "tinytales" / "README.md"]
# Those of whoever works on the package or its data name commands, too.
_OTHERS = [folder.rglob("*.md") for folder in (ROOT / "changelog.d", ROOT / "hmm", ROOT / "grammars", ROOT / "tools")]
TEXTS = [*PAGES, *ROOT.glob("CONTRIBUTING.md"), *sorted(path for found in _OTHERS for path in found)]
_PROGRAMS = ("ctrldecode", "make", "pip", "pytest", "python", "torchrun", "towncrier")


def blocks(page: Path, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def lines(page: Path) -> list[str]:
    """Lines of bash and indented blocks, in order; a line that ends in a backslash goes on."""
    fenced = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = [*fenced.split("\n"), *(line[4:] for line in text.split("\n") if line.startswith("    "))]
    return [line.removeprefix("$ ") for line in found]


def answers(page: Path) -> dict[str, str]:
    """What a page shows below a command, in blocks whose command stands behind `$ `."""
    found = re.findall(r"^    \$ (.*)\n((?:    (?!\$ ).*\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {command: textwrap.dedent(said) for command, said in found}


def prints(page: Path) -> dict[str, str]:
    """What a page shows below a block of Python."""
    found = re.findall(
        r"^```python\n((?:(?!```).*\n)*)```\n\n((?:    .*\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {block: textwrap.dedent(said) for block, said in found}


def mentions(page: Path) -> list[str]:
    """Commands in the sentences and tables of a page, where they stand as code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", text)
    return [" ".join(span.replace(r"\|", "|").split()) for span in spans]


def shown(page: Path, *programs: str) -> list[str]:
    """All commands of a page that call one of some programs, by default any that the documentation knows."""
    found = [line.strip() for line in (*lines(page), *mentions(page))]
    return [line for line in dict.fromkeys(found) if line.partition(" ")[0] in (programs or _PROGRAMS)]


def words_of(line: str) -> tuple[list[str], str | None]:
    """The words of the first command of a line, and the file that stands behind `<`, if one does."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>;")
    lexer.whitespace_split = True
    words = list(lexer)
    ends = [at for at, word in enumerate(words) if word in {"|", "<", ">", ";"}]
    read = words[ends[0] + 1] if ends and words[ends[0]] == "<" else None
    return words[: ends[0]] if ends else words, read
