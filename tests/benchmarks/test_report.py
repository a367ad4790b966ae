from __future__ import annotations

import re

import pytest

from tests.benchmarks.report import PAGE, TABLES, Report, losses, machine, replaced

TEXT = "# Page\n\n<!-- trie -->\n\nold\n\n<!-- /trie -->\n\nBy hand.\n\n<!-- b -->\nstays\n<!-- /b -->\n"


def test_only_what_is_between_the_marks_changes():
    page = replaced(TEXT, "trie", "| new |")
    assert page == TEXT.replace("old", "| new |")
    assert replaced(page, "trie", "| new |") == page


@pytest.mark.parametrize(
    "page", ["", "<!-- a -->", "<!-- /a --><!-- a -->", "<!-- a --><!-- /a --><!-- a --><!-- /a -->"]
)
def test_a_page_without_one_pair_of_marks_is_refused(page):
    with pytest.raises(ValueError, match="the page needs one <!-- a -->"):
        replaced(page, "a", "text")


def test_rows_of_several_calls_make_one_table(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(TEXT)
    report = Report(path)
    report.add("trie", ["what", "ms"], [["first", "1"]], ["A note."], ["torch"])
    report.add("trie", ["what", "ms"], [["second", "2"]], ["A note."])
    text = path.read_text()
    assert "| what | ms |\n| --- | --- |\n| first | 1 |\n| second | 2 |\n\nA note.\n\n*" in text
    assert "old" not in text
    assert "stays" in text
    assert machine().partition(", load")[0] in text
    with pytest.raises(ValueError, match="cells"):
        report.add("trie", ["what", "ms"], [["third"]])
    with pytest.raises(ValueError, match="not among the tables"):
        report.add("b", ["what", "ms"], [["third", "3"]])


def test_the_page_has_a_place_for_every_table_and_no_other():
    page = PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- (/?[\w-]+) -->", page)) == sorted([*TABLES, *(f"/{name}" for name in TABLES)])
    for name in TABLES:
        assert "| --- |" in page.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0], name


# Tables of our figures alone: nothing stands beside them that could be better.
ALONE = {"startup", "guidance", "automata", "trie", "samplers", "e-step-memory", "growth-lookahead", "growth-asap"}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_with_something_beside_us_says_where_we_lose(name):
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    assert ("\nWhere we lose: " in table) == (name not in ALONE)


def test_where_we_lose_is_named():
    ours = {"cold": 10.0, "warm": 1.0, "p99": 3.0}
    peers = {"other 1.0": {"cold": 4.0, "warm": 2.0}, "third 2.0": {"cold": 11.0, "p99": 1.0}}
    assert losses(ours, peers) == "Where we lose: cold: 2.5 times other 1.0; p99: 3 times third 2.0."
    assert losses({"warm": 1.0}, peers) == "Where we lose: nowhere in this table."
