"""The tools that the documentation names beside its figures run with the arguments shown, at a small size."""

from __future__ import annotations

import sys

import pytest

from tests.docs.pages import PAGES, ROOT, mentions, words_of
from tests.docs.test_programs_run import done

# The last value of an option counts.
SMALL = {
    "tools.fuzz": "--cases 1 --findings findings",
    "tools.guidance.evaluate": "--prompts 2 --tokens 8",
    "tools.lookahead.evaluate": "--sets 1 --rows 2 --tokens 16",
    "tools.lookahead.steer": "--rows 2 --tokens 8",
    "tools.samplers.compare": "--nums 10 --seeds 1 --free 0 --max-lm-calls 40",
}
NOT_RUN = {
    "python -m tools.docs.": "writes into docs/; tests hold what is there to what it would write",
    "python -m tools.fuzz replay": "reads a finding",
}
READER = {"TARGET": "all", "N": "1", "S": "1"}
LINES = [
    line
    for page in PAGES
    for line in mentions(page)
    if line.startswith("python -m tools.") and not line.startswith(tuple(NOT_RUN))
]


@pytest.mark.parametrize("line", LINES)
def test_tool_runs(line, tmp_path):
    words = [READER.get(word, word) for word in words_of(line)[0]]
    (tmp_path / "hmm").symlink_to(ROOT / "hmm")
    assert done([sys.executable, *words[1:], *SMALL[words[2]].split()], tmp_path, PYTHONPATH=str(ROOT))


def test_all_tools_have_a_small_size():
    assert {words_of(line)[0][2] for line in LINES} == SMALL.keys()
