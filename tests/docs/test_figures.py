"""Figures that pages quote of the benchmarks' tables are those of the tables."""

from __future__ import annotations

import re

from tests.benchmarks.report import MASKS, PAGE
from tests.docs.pages import ROOT

GRAMMARS, REGEXES = MASKS[:4], MASKS[4:]


def table(name):
    return PAGE.read_text(encoding="utf-8").partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]


def times(name, what, peer):
    """How many times less a peer needs, as the line below a table says; from the least to the most where sizes grow."""
    said = table(name).partition("Where we lose: ")[2].partition("\n")[0].rstrip(".")
    found = re.search(rf"(?:^|; ){what}[:,] ([\d.]+)(?: to ([\d.]+))? times {peer}\b", said)
    return [round(float(figure)) for figure in found.groups() if figure] if found else []


def cell(toolkit):
    """The line of the table of other toolkits."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    return re.search(rf"^\| {toolkit} \|.*$", text, re.MULTILINE)[0]


def test_llguidance():
    shipped = [least for name in GRAMMARS for least in times(f"masks-{name}", "cold", "llguidance")]
    regular = [least for name in REGEXES for least in times(f"masks-{name}", "cold", "llguidance")]
    growing = [times(f"growth-{kind}", "cold", "llguidance")[-1] for kind in ("vocabulary", "grammar")]
    said = cell("llguidance")
    assert f"takes {min(shipped)} to {max(shipped)} times as long as there" in said
    assert f"through a regular expression up to {max(regular)} times" in said
    assert f"({growing[0]} and {growing[1]} times)" in said


def test_xgrammar():
    said = cell("xgrammar")
    (arithmetic,), (dates,) = (times(f"masks-{name}", "cold", "xgrammar") for name in ("arithmetic", "time"))
    assert f"(arithmetic: {arithmetic} times, ISO times: {dates} times)" in said
    rules, tokens = (times(f"growth-{kind}", "cold", "xgrammar") for kind in ("grammar", "vocabulary"))
    assert f"({rules[0]} to {rules[-1]} times)" in said
    assert f"({tokens[0]} to {tokens[-1]} times)" in said
    assert not any(times(f"masks-{name}", "warm step", "xgrammar") for name in GRAMMARS)
    assert "warm steps are faster in all four grammars" in said


def test_transformers():
    rows = [line.strip("| ").split(" | ") for line in table("transformers").split("\n") if line.startswith("| ")]
    bans = [round(float(row[-1])) for row in rows if "forbidden pairs" in row[0]]
    guided = [float(row[-1]) for row in rows if "guidance" in row[0]]
    said = cell("transformers' own processors")
    assert f"{min(bans)} to {max(bans)} times as fast" in said
    assert "guidance up to twice" in said
    assert max(guided) < 2.05
