"""Tables of the documentation that list what the code has."""

from __future__ import annotations

import re

from ctrldecode.explain import reasons
from tests.docs.pages import ROOT

# Of classes that have reasons of their own, by the first word of their row; a constraint for each row has those of its parts.
ROWS = {
    "GrammarPotential": "grammar",
    "JointPotential": "grammar within an automaton",
    "AutomatonPotential": "automaton",
    "Lookahead": "lookahead",
    "GeDi": "GeDi",
    "Fudge": "FUDGE",
    "object": "others",
}


def test_every_potential_with_reasons_has_a_row():
    text = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    table = re.search(r"^\| potential \| .*\n\|---.*\n((?:\|.*\n)+)", text, re.MULTILINE)[1]
    assert [line.split(" | ")[0].strip("| ") for line in table.splitlines()] == list(ROWS.values())
    for generic in (reasons.why, reasons.facts):
        own = {
            kind.__name__
            for kind in generic.registry
            if kind.__module__.partition(".")[0] in {"ctrldecode", "builtins"}
        }
        assert own - {"PerRow"} == ROWS.keys()
