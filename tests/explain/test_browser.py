"""The page in headless Chromium: keys, both colour schemes, narrow windows, no network, no complaint of the console."""

from __future__ import annotations

import os

import pytest

from ctrldecode.explain import page
from tests.explain.examples import HOSTILE, record
from tests.explain.webdriver import DOWN, END, HOME, LEFT, RIGHT, TAB, UP, browser, programs

pytestmark = pytest.mark.browser

_WANTED = bool(os.environ.get("CI") or os.environ.get("CTRLDECODE_BROWSER"))
_LENGTH = 60


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    found = programs()
    if found is None:
        remedy = (
            "make test could not install it"
            if _WANTED
            else "set CTRLDECODE_BROWSER=1 and run make test as root on Debian"
        )
        pytest.skip(f"needs chromium and chromedriver (apt-get install chromium chromium-driver): {remedy}")
    folder = tmp_path_factory.mktemp("browser")
    with browser(*found, folder / "profile") as opened:
        yield opened


@pytest.fixture
def opened(window, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page(record(length=_LENGTH)), encoding="utf-8")
    window.window(1200)
    window.scheme("light")
    window.open(path)
    return window


def selected(window):
    """Number of the selected token, by the row of tokens; it is the only one that Tab reaches, and the one in the panel."""
    script = """
      const chips = [...document.querySelectorAll('[role=option]')];
      const on = chips.filter((chip) => chip.getAttribute('aria-selected') === 'true');
      const reached = chips.filter((chip) => chip.tabIndex === 0);
      return [on.map((chip) => chips.indexOf(chip)), reached.map((chip) => chips.indexOf(chip)),
              document.getElementById('h-panel').textContent];
    """
    on, reached, title = window.run(script)
    assert len(on) == 1
    assert on == reached
    assert title.startswith(f"Token {on[0] + 1} of {_LENGTH}: ")
    return on[0]


def test_keys_choose_a_token(opened):
    assert selected(opened) == _LENGTH - 1  # the one of weight 0, which the page is about
    opened.press(TAB)
    assert opened.run("return document.activeElement.id") == f"token-{_LENGTH - 1}"
    for key, wanted in [(HOME, 0), (LEFT, 0), (RIGHT, 1), (DOWN, 2), (UP, 1), (END, _LENGTH - 1), (RIGHT, _LENGTH - 1)]:
        opened.press(key)
        assert selected(opened) == wanted
        assert opened.run("return document.activeElement.id") == f"token-{wanted}"
    outline = opened.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_click_chooses_a_token(opened):
    opened.run("document.getElementById('token-4').click()")
    assert selected(opened) == 4
    assert opened.run("return document.querySelectorAll('tr.current').length") == 1


def test_the_panel_tells_what_happened_and_why(opened):
    told = opened.run("return document.getElementById('panel').innerText")
    for wanted in (
        "Weight 0: cannot stand here; expected: NUMBER",
        "masked",
        "P(happy)",
        "log-weight so far",
        HOSTILE[:20],
    ):
        assert wanted in told


def test_the_panel_tells_what_was_moved(opened):
    opened.run("document.getElementById('token-3').click()")
    pairs = "return [...document.querySelectorAll('#details > .facts dt')].map((dt) => [dt.textContent, dt.nextSibling.textContent])"
    assert dict(opened.run(pairs))["moved"] == "99 % of the model’s probability"
    assert "moved" in opened.run("return document.getElementById('token-3').title")


def test_the_panel_heads_every_potential_with_what_was_asked_for(opened):
    heads = opened.run("return [...document.querySelectorAll('#details h3')].map((head) => head.textContent)")
    assert heads == [
        "the grammar <json>: --grammar '<json>'",
        "GeDi towards 'happy' (30) (posterior): --guide happy=30",
    ]


def test_probabilities_and_weights_have_columns_of_their_own(opened):
    opened.run("document.getElementById('token-0').click()")
    script = "return [...document.querySelector('#details table').rows].map((row) => [...row.cells].map((c) => c.textContent))"
    heads, first, other = opened.run(script)
    assert [head.rpartition(", ")[2] for head in heads[1:]] == ["%", "×", "%", "×", "%"]
    # p = e^−0.7; the grammar leaves it, and Σ is e^−0.1; GeDi weighs it by e^−0.5, and Σ is e^−0.3.
    assert first == ["␣word", "49.7", "1.00", "54.9", "0.61", "40.7"]
    assert other == ["other", "5.0", "0", "masked", "–", "–"]


def test_a_screen_reader_hears_one_short_line(opened):
    """Nothing at first, then the token alone: no table is in a live region."""
    live = "[...document.querySelectorAll('[aria-live], [role=status], [role=alert], [role=log], [aria-atomic]')]"
    said = f"return {live}.map((node) => node.textContent)"
    assert opened.run(said) == [""]
    opened.press(TAB, HOME)
    assert opened.run(said) == [f"Token 1 of {_LENGTH}: ␣word, 49.7 % by the model, chosen with 40.7 %."]
    opened.press(END)
    assert opened.run(said) == [f"Token {_LENGTH} of {_LENGTH}: <|end|>, 49.7 % by the model, impossible."]


@pytest.mark.parametrize("text", ["a\n\n b\r\nc\td", "\nfirst", "<b>&amp;</pre> ش \u202e"])
def test_the_text_can_be_copied(window, tmp_path, text):
    path = tmp_path / "plain.html"
    path.write_text(page(record(length=3)._replace(text=text)), encoding="utf-8")
    window.open(path)
    assert window.run("return document.getElementById('plain').textContent") == text
    assert window.run("return document.getElementById('plain').checkVisibility()")


def test_a_character_of_code_0_is_not_lost(window, tmp_path):
    path = tmp_path / "zero.html"
    path.write_text(page(record(length=3)._replace(text="a\0b")), encoding="utf-8")
    window.open(path)
    assert window.run("return document.getElementById('plain').textContent") == "a\ufffdb"


def test_hostile_tokens_stay_text(opened):
    assert opened.run("return document.querySelectorAll('img').length") == 0
    assert opened.run("return document.getElementById('token-1').textContent").startswith("</script><img")
    assert opened.run("return JSON.parse(document.getElementById('data').textContent).steps[1].token.text") == HOSTILE


def test_nothing_is_fetched_and_the_console_is_silent(opened):
    opened.press(TAB, HOME, RIGHT)
    assert opened.run("return performance.getEntriesByType('resource').length") == 0
    assert opened.messages() == []


def test_a_request_would_be_refused(opened):
    """The policy of the page is in force, so the silence above is no accident."""
    opened.run("const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image);")
    opened.run("return new Promise((resolve) => setTimeout(resolve, 200))")
    assert any("Content Security Policy" in message for message in opened.messages())


def test_light_and_dark(opened):
    background = "return getComputedStyle(document.body).backgroundColor"
    assert opened.run(background) == "rgb(255, 255, 255)"
    opened.scheme("dark")
    assert opened.run(background) == "rgb(20, 24, 29)"


@pytest.mark.parametrize("width", [320, 360, 768])
def test_no_page_scrolls_sideways(opened, width):
    opened.window(width)
    for key in (HOME, END):
        opened.run(f"document.getElementById('token-{0 if key == HOME else _LENGTH - 1}').click()")
        root = "document.documentElement"
        outer, inner, content = opened.run(f"return [innerWidth, {root}.clientWidth, {root}.scrollWidth]")
        assert outer == width
        assert content <= inner


@pytest.mark.parametrize("width", [320, 400, 1280])
def test_captions_are_not_cut_off(opened, width):
    """What stands above a table that scrolls sideways is as wide as the page."""
    opened.window(width)
    script = "return [...document.querySelectorAll('#details .hint')].map((p) => [p.getBoundingClientRect().right, p.textContent])"
    captions = opened.run(script)
    assert [text[:9] for _, text in captions] == ["Likeliest", "Likeliest"]
    assert all(right <= width for right, _ in captions)


# As WCAG 2.2 has them: every visible text against what is painted behind it.
CONTRASTS = """
const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const parse = (css) => { const c = css.match(/[\\d.]+/g).map(Number);
  return css.startsWith('color(srgb') ? [c[0] * 255, c[1] * 255, c[2] * 255, c[3] ?? 1] : [c[0], c[1], c[2], c[3] ?? 1]; };
const over = (top, under) => under.map((v, i) => top[3] * top[i] + (1 - top[3]) * v);
const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
const behind = (node) => { const chain = []; for (let n = node; n; n = n.parentElement) chain.unshift(n);
  return chain.reduce((under, n) => over(parse(getComputedStyle(n).backgroundColor), under), [255, 255, 255]); };
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !node.checkVisibility() || ['SCRIPT', 'NOSCRIPT'].includes(node.tagName)) continue;
  const style = getComputedStyle(node), under = behind(node);
  const own = light(over(parse(node instanceof SVGElement ? style.fill : style.color), under)), ground = light(under);
  const ratio = (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
  found.push([ratio, node.className.baseVal ?? node.className, walker.currentNode.textContent.slice(0, 30)]);
}
return found.sort((a, b) => a[0] - b[0]).slice(0, 3);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(opened, scheme):
    opened.scheme(scheme)
    assert opened.run(CONTRASTS)[0][0] >= 4.5, opened.run(CONTRASTS)


def test_without_scripts_text_and_steps_are_there(opened, tmp_path):
    opened.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened.open(tmp_path / "page.html")
        root = opened.devtools("DOM.getDocument", depth=-1)["root"]["nodeId"]
        shown = opened.devtools("DOM.getOuterHTML", nodeId=root)["outerHTML"]
    finally:
        opened.devtools("Emulation.setScriptExecutionDisabled", value=False)
    assert shown.count('role="option"') == _LENGTH
    assert shown.count('<th scope="row">') == _LENGTH  # the table of steps; the panel's tables are not there
    assert "Scripts are off" in shown
