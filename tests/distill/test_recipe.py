from __future__ import annotations

from dataclasses import replace

import pytest

from ctrldecode.distill.recipe import Recipe, Samples, read_prompts
from ctrldecode.errors import DistillationError

SEVERAL = Recipe(
    model='a "quoted" \\ name',
    states=4,
    samples=(Samples(10, 8, ("é\n", "")), Samples(5, 4)),
    temperature=0.7,
    dtype="uint8",
)


@pytest.mark.parametrize("recipe", [Recipe(), SEVERAL])
def test_toml_and_back(tmp_path, recipe):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
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
        ('states = "many"', "wrong type"),
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


@pytest.mark.parametrize(("data", "message"), [(b"\n \n", "are empty"), (b"\xff", "cannot be read")])
def test_bad_prompts_are_told(tmp_path, data, message):
    path = tmp_path / "prompts.txt"
    path.write_bytes(data)
    with pytest.raises(DistillationError, match=message):
        read_prompts(path)
    with pytest.raises(DistillationError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")
