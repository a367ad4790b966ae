from __future__ import annotations

from dataclasses import replace

import pytest

from ctrldecode.distill.recipe import Recipe, Samples, read_prompts
from ctrldecode.errors import DistillationError

SEVERAL = Recipe(
    model='a "quoted" \\ name',
    states=4,
    samples=(Samples(10, 8, ("é\n", "", "".join(map(chr, range(0x2100))))), Samples(5, 4)),
    temperature=0.7,
    dtype="uint8",
)


@pytest.mark.parametrize("recipe", [Recipe(), SEVERAL])
def test_toml_and_back(tmp_path, recipe):
    path = tmp_path / "recipe.toml"
    path.write_bytes(recipe.to_toml().encode())
    assert Recipe.from_toml(path) == recipe


def test_what_is_not_named_has_its_default(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("states = 7\n[[samples]]\nlength = 9\n")
    assert Recipe.from_toml(path) == Recipe(states=7, samples=(Samples(length=9),))


def test_prompts_by_file(tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\n two \n", encoding="utf-8")
    path = tmp_path / "recipe.toml"
    path.write_text('[[samples]]\nprompts = "prompts.txt"\n')
    assert Recipe.from_toml(path).samples[0].prompts == ("one", " two ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("states = ", "cannot be read"),
        ("stats = 3", "stats, which means nothing"),
        ("[[samples]]\nlenght = 3", "lenght, which means nothing"),
        ('states = "many"', "states must be a whole number, got 'many'"),
        ("states = 3.5", "states must be a whole number, got 3.5"),
        ("states = true", "states must be a whole number, got True"),
        ("seed = 1e3", "seed must be a whole number"),
        ("seed = -1", "seed must be at least 0"),
        ("batch = 2.5", "batch must be a whole number"),
        ("held_out = 5.5", "held_out must be a whole number"),
        ("update = 2.5", "update must be a whole number"),
        ('tolerance = "x"', "tolerance must be a finite number, got 'x'"),
        ("tolerance = nan", "tolerance must be a finite number"),
        ("temperature = inf", "temperature must be a positive, finite number"),
        ('forgetting = "x"', "forgetting must be a finite number"),
        ("token_dropout = [0]", "token_dropout must be a finite number"),
        ("model = 3", "model must be a text, got 3"),
        ("dtype = 16", "dtype must be one of float32"),
        ("[[samples]]\nprompts = [1]", "a prompt must be a text, got 1"),
        ("[[samples]]\nprompts = 1", "prompts must be a list of texts, or the name of a file, got 1"),
        ("[[samples]]\nsequences = 1.5", "sequences must be a whole number"),
        ('[[samples]]\nlength = "x"', "length must be a whole number"),
        ("[samples]\nsequences = 3", r"has the table \[samples\], wanted \[\[samples\]\]"),
        ("samples = 3", r"has samples = 3, wanted tables headed by \[\[samples\]\]"),
        ("samples = [3]", r"wanted tables headed by \[\[samples\]\]"),
        ("states = 1", "states must be at least 2, got 1"),
        ("[[samples]]\nlength = 1", "length must be at least 2"),
        ("[[samples]]\nsequences = 0", "sequences must be at least 1"),
        ("[[samples]]\nprompts = []", "prompts must be at least one"),
        ("temperature = 0.0", "temperature must be a positive"),
        ("emission_prior = 0.0", "emission_prior must be a positive"),
        ("forgetting = 0.5", "forgetting must be in"),
        ("token_dropout = 1.0", "token_dropout must be in"),
        ('dtype = "int4"', "dtype must be one of float32"),
        ("temperature = nan", "temperature must be a positive"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(DistillationError, match=message):
        Recipe.from_toml(path)


def test_options_go_before_the_recipe():
    assert Recipe().with_samples() == Recipe()
    assert Recipe().with_samples(length=3).samples == (replace(Samples(), length=3),)
    with pytest.raises(DistillationError, match="2 kinds of samples"):
        SEVERAL.with_samples(length=3)


def test_a_prompt_ends_where_its_line_does(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("one\u2028still one\r\ntwo\x0bstill two\rand on\n\r\nthree".encode())
    assert read_prompts(path) == ("one\u2028still one", "two\x0bstill two\rand on", "three")


@pytest.mark.parametrize(("data", "message"), [(b"\n \n", "are empty"), (b"\xff", "cannot be read")])
def test_bad_prompts_are_told(tmp_path, data, message):
    path = tmp_path / "prompts.txt"
    path.write_bytes(data)
    with pytest.raises(DistillationError, match=message):
        read_prompts(path)
    with pytest.raises(DistillationError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")
