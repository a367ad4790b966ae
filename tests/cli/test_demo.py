"""`ctrldecode demo` with the embedded model: it ends, and what it shows is valid."""

from __future__ import annotations

import json
import re

from ctrldecode.cli import demo


def test_demo(run):
    result = run("demo")
    assert result.code == 0
    cards = [json.loads(text) for text in re.findall(r"^\{\n.*?^\}$", result.out, flags=re.MULTILINE | re.DOTALL)]
    assert len(cards) == len(demo._STORIES)
    assert all(list(card) == ["hero", "kind", "animals", "things", "mood"] for card in cards)
    notes = re.findall(r"log-weight -?\d+\.\d\d, \d+ tokens", result.out)
    assert len(notes) == len(cards) + demo._SHOWN * len(demo._OTHERS) + 2
    story = result.out.split("the one of most weight\n")[-1].split("\n    log-weight")[0]
    assert all(any(word in story for word in clause.split("|")) for clause in demo._WORDS)
