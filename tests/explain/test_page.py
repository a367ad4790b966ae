"""The page as a text: nothing in it can break out, it names no other file, and its colours can be told apart."""

from __future__ import annotations

import itertools
import json
import math
import re
from html import escape, unescape
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from ctrldecode.explain import Trace, from_json, page, to_json, verdict
from ctrldecode.explain.page import _class
from ctrldecode.explain.record import Effect, Fact, Factor, Removed, Setting, Token
from tests.explain.examples import HOSTILE, record, step

VOID = {"meta", "br", "img", "line"}


class Reader(HTMLParser):
    """Elements in order with their attributes, the text of each script, and whether all that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def read():
    return Reader(page(record()))


def test_hostile_tokens_cannot_break_out(read):
    assert read.open == []
    tags = {tag for tag, _ in read.elements}
    assert "img" not in tags
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    data, _ = read.scripts
    assert json.loads(data) == json.loads(to_json(record()))
    assert not set("<>&\u2028\u2029") & set(data)
    assert HOSTILE[:20] in read.text


def test_it_needs_nothing_else(read):
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in read.elements}
    assert not any({"src", "href", "srcset", "action", "style"} & set(attributes) for _, attributes in read.elements)
    (policy,) = (a["content"] for tag, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    assert re.search(r"\b(?:https?|wss?|ftp|data):|url\(|@import", page(record())) is None


def test_it_is_marked_up_for_all_readers(read):
    of = {tag: [a for t, a in read.elements if t == tag] for tag, _ in read.elements}
    assert of["html"][0]["lang"] == "en"
    assert len(of["h1"]) == 1
    assert all(head.get("scope") in ("col", "row") for head in of["th"])
    assert [a["id"] for _, a in read.elements if a.get("role") == "status" or "aria-live" in a] == ["said"]
    assert all(drawing.get("aria-label") or drawing.get("aria-hidden") for drawing in of["svg"])
    names = [a["id"] for _, a in read.elements if "id" in a]
    assert len(names) == len(set(names))
    for _, attributes in read.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, names[0]) in names


def test_text_and_steps_stand_in_it_without_scripts(read):
    trace = record()
    chips = [a for _, a in read.elements if a.get("role") == "option"]
    rows = [a for tag, a in read.elements if tag == "th" and a.get("scope") == "row"]
    assert len(chips) == len(rows) == len(trace.steps)
    assert "cannot stand here; expected: NUMBER" in read.text
    assert verdict(trace) in read.text


def test_what_was_asked_for_stands_in_it_without_scripts(read):
    assert "the grammar <json>: --grammar '<json>'" in read.text
    assert "GeDi towards 'happy' (30) (posterior): --guide happy=30" in read.text
    bare = record()._replace(factors=())
    bare = bare._replace(steps=tuple(one._replace(effects=()) for one in bare.steps))
    assert "None: the model alone." in Reader(page(bare)).text


@pytest.mark.parametrize(
    "text", ["", "two\nlines", "\nfirst is empty", "a\r\nb\rc", "<b>&amp;</pre>", "◌\t tab", "\n\n"]
)
def test_the_text_stands_in_it_as_plain_text(text):
    shown = page(record(length=2)._replace(text=text))
    begin = shown.index('<pre id="plain"')
    inner = shown[shown.index(">", begin) + 1 : shown.index("</pre>", begin)]
    # As browsers read it: one kind of line break, less the first one of a pre; references only then.
    assert unescape(re.sub("\r\n?", "\n", inner).removeprefix("\n")) == text


def test_every_column_of_numbers_has_one_unit():
    trace = record(length=12)
    table = page(trace).partition('<table id="steps"')[2].partition("</table>")[0]
    heads = [unescape(head) for head in re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)]
    units = [head.rpartition(", ")[2] for head in heads[2:-1]]
    assert units == ["%", "%", "tokens", "% of the model", "% of the model", *["nat"] * 5]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", table)[1:]]
    assert len(rows) == 12
    assert all(re.fullmatch(r"|−?∞|−?[0-9.]+(?:e−[0-9]+)?", cell) for row in rows for cell in row)


def test_numbers_beside_an_axis_do_not_stand_on_one_another():
    for low, high in ((-0.26, 29.6), (-8.2, 0.1), (-8.2, 2.9), (0.0, 3.0), (-0.01, 0.01)):
        steps = tuple(step(at, "a")._replace(log_weight=weight) for at, weight in enumerate((low, high)))
        chart = page(record(length=2)._replace(steps=steps)).partition("<figure>")[2].partition("</figure>")[0]
        heights = sorted(float(y) for y in re.findall(r'<text x="56" y="([0-9.]+)"', chart))
        assert len(heights) >= 2
        assert all(below - above >= 14 for above, below in itertools.pairwise(heights))


# ------------------------------------------------------------------------------------------------------------- colours


def palettes() -> dict[str, dict[str, str]]:
    """The variables of both schemes, by name."""
    css = files("ctrldecode.explain").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    )
    assert set(light) == set(dark)
    return {"light": light, "dark": dark}


def contrast(first: str, second: str) -> float:
    """The ratio of WCAG 2.2 of two colours #rrggbb."""
    low, high = sorted(luminance(color) for color in (first, second))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


GROUNDS = ("page", "raised")
CHIPS = ("none", "little", "much", "most")


def test_the_measure_itself():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(scheme):
    colors = palettes()[scheme]
    pairs = [(text, ground) for text in ("text", "muted", "bad") for ground in GROUNDS]
    pairs += [("chip", ground) for ground in CHIPS] + [("on-forbidden", "forbidden")]
    assert {
        pair: contrast(*(colors[name] for name in pair))
        for pair in pairs
        if contrast(*(colors[name] for name in pair)) < 4.5
    } == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_focus_stand_out(scheme):
    colors = palettes()[scheme]
    for name in ("accent", "first", "second", "third", "fourth"):
        assert contrast(colors[name], colors["page"]) >= 3  # WCAG 1.4.11, what is no text


def test_what_was_done_is_not_told_by_colour_alone():
    css = files("ctrldecode.explain").joinpath("page.css").read_text(encoding="utf-8")
    styles = {name: re.search(rf"\.chip\.{name} \{{.*?(dotted|dashed|solid)", css)[1] for name in CHIPS[1:]}
    assert len(set(styles.values())) == 3
    assert "line-through" in re.search(r"\.chip\.forbidden \{.*\}", css)[0]


@pytest.mark.parametrize(
    ("moved", "name"),
    [(0, "none"), (0.005, "none"), (0.1, "little"), (0.5, "little"), (0.6, "much"), (0.95, "much"), (0.96, "most")],
)
def test_classes_of_tokens(moved, name):
    """They tell what was moved, whatever soft weights make of the log-weight."""
    for log_weight in (-4.0, 0.0, 4.0):
        assert _class(step(0, "a", log_weight, moved=moved)) == name
    assert _class(step(0, "a", -math.inf, moved=moved)) == "forbidden"


def test_what_a_colour_tells_is_said_in_whole():
    """By a screen reader at every token, which has no legend beside it."""
    steps = tuple(step(at, "a", moved=moved) for at, moved in enumerate((0.0, 0.1, 0.6, 0.96)))
    shown = page(record(length=2)._replace(steps=steps, ending="open"))
    said = [unescape(one) for one in re.findall(r'<span class="unseen">(.*?)</span>', shown)]
    assert said == [
        f", {much} of the model’s probability moved" for much in ("up to half", "more than half", "more than 95 %")
    ]
    titles = re.findall(r'role="option"[^>]* title="(.*?)"', shown)
    assert titles == ["0 % moved", "10.0 % moved", "60.0 % moved", "96.0 % moved"]


# ------------------------------------------------------------------------------------------------------------- verdicts


def test_verdicts():
    why = "The grammar <json> (--grammar '<json>'): cannot stand here; expected: NUMBER."
    assert verdict(record()) == f"Token 60, “<|end|>”, is impossible. {why}"
    one = record(length=2)
    open_text = one._replace(ending="open", steps=one.steps[:1])
    assert verdict(open_text) == (
        "1 token; the text goes on, or was cut off. Log-weight 0; sum of the tokens’ log-weights −0.500."
    )
    ended = open_text._replace(ending="ended")
    assert "ended by itself" in verdict(ended)
    complete = open_text._replace(ending="complete")
    assert verdict(complete).startswith("1 token; the text is complete by its potentials, and its budget is used up. ")


def test_a_factor_is_named_with_its_power():
    factors = (Factor("the automaton", "automaton", 1.0), Factor("the lookahead, detail 0", "lookahead", 1.25))
    trace = record(length=3)._replace(factors=factors)
    read = Reader(page(trace))
    assert "the lookahead, detail 0, to the power of 1.25" in read.text
    assert "sum of log-weights of the lookahead, detail 0, to the power of 1.25, nat" in read.text
    assert "to the power of 1.25: " not in read.text
    assert "log ψ of the lookahead" not in read.text


def dead_end(*, first=True, budget=False):
    """A place at which a grammar forbids some tokens, or none, and an automaton the others."""
    at = step(1, "")._replace(token=None)
    why = "it fits, but finishing may take 3 tokens more" if budget else "cannot stand here; expected: NUMBER"
    grammar = Effect(
        math.nan,
        0.0,
        5 * first,
        0.5,
        (Fact("expects", "NUMBER", ""),),
        (Removed(Token(1, "a", "text"), -1.0, why),),
        "",
        -0.7,
    )
    words = Effect(
        math.nan, 0.0, 2, 0.5, (), (Removed(Token(2, "7", "text"), -1.0, "it leads nowhere"),), "", -math.inf
    )
    factors = (Factor("the grammar n", "grammar", 1.0), Factor("the automaton", "automaton", 1.0, "--contains 'a cat'"))
    return Trace("", "", "dead end", factors, (at._replace(effects=(grammar, words)),))


def test_a_dead_end_names_who_forbade_all_and_why():
    grammar = "The grammar n forbids 5 tokens: it expects NUMBER"
    words = "The automaton (--contains 'a cat') forbids all {}: of “7”, the likeliest of them, it says that it leads nowhere."
    assert verdict(dead_end()) == f"Token 1: nothing can follow. {grammar}. {words.format('others')}"
    assert verdict(dead_end(first=False)) == f"Token 1: nothing can follow. {words.format('tokens')}"
    more = "; of “a”, the likeliest of them, it says that it fits, but finishing may take 3 tokens more."
    assert verdict(dead_end(budget=True)) == f"Token 1: nothing can follow. {grammar}{more} {words.format('others')}"
    assert escape(verdict(dead_end())) in page(dead_end())
    none = dead_end()
    effects = tuple(effect._replace(masked=0) for effect in none.steps[0].effects)
    assert "The model gives every token probability 0" in verdict(
        none._replace(steps=(none.steps[0]._replace(effects=effects),))
    )


def test_what_was_not_looked_at_is_told():
    assert verdict(record()._replace(rest=1)).endswith(" Not looked at: 1 token that stands behind it.")
    ended = record(length=2)._replace(ending="ended", rest=3)
    assert verdict(ended).endswith(" Not looked at: 3 tokens that stand behind the end of sequence.")
    assert "3 tokens that stand behind the end of sequence" in page(ended)


@pytest.mark.parametrize("ending", ["open", "complete", "ended", "dead end", "forbidden"])
def test_pages_of_every_ending(ending):
    trace = record(length=2)
    place = trace.steps[-1]._replace(token=None) if ending == "dead end" else trace.steps[-1]
    assert Reader(page(trace._replace(ending=ending, steps=(*trace.steps[:-1], place)))).open == []
    assert Reader(page(Trace("", "", ending, (), ()))).open == []


def test_template_signs_in_texts_stay():
    assert "$data and ${script}" in Reader(page(record()._replace(prompt="$data and ${script}"))).text


def test_characters_that_no_file_can_hold():
    """Code 0, which readers of HTML leave out, and halves of pairs of UTF-16."""
    trace = record()._replace(text="a\0b\udc80c", prompt="\ud83d", settings=(Setting("model", "\udfff"),))
    shown = page(trace)
    assert "\0" not in shown
    assert "a\ufffdb\ufffdc" in Reader(shown.encode("utf-8").decode("utf-8")).text
    assert from_json(to_json(trace).encode("utf-8").decode("utf-8")) == trace
    assert from_json(Reader(shown).scripts[0]) == trace
