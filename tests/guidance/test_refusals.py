"""What cannot be is refused in plain words: arguments, entries of a config, tokenizers and tokens."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ctrldecode.errors import InputError, VocabularyError
from ctrldecode.guidance import GeDi, Prompted, cfg, contrastive, dexperts, fudge, plausible
from tests.guidance.models import CODES, EOS, SIZE, TableModel


def judge(_, mask):
    return -0.1 * mask.sum(-1)


def gedi(**arguments):
    return GeDi(TableModel(), CODES, **{"target": "a", **arguments})


def of_config(**entry):
    lm = TableModel()
    lm.config = {"gedi": {"codes": CODES, **entry}}
    return GeDi(lm, target="a")


def fudged(**arguments):
    return fudge(judge, **{"size": SIZE, "eos_token_ids": [EOS], **arguments})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of_config(bias=[0.1, 0.2]), r"bias must map class names to numbers, .* got \[0.1, 0.2\]"),
        (lambda: of_config(bias={"a": "much"}), "biases must be finite numbers"),
        (lambda: of_config(normalise="no"), "normalise must be true or false, got 'no'"),
        (lambda: of_config(normalise=0), "normalise must be true or false, got 0"),
        (lambda: gedi(bias=5), "bias must map class names to numbers, .* got 5"),
        (lambda: gedi(bias={"z": 1, 2: 1}), "no classes"),
        (lambda: gedi(normalise="no"), "normalise must be true or false"),
        (lambda: gedi(eos_token_ids=["x"]), "eos_token_ids must be a list of token ids"),
        (lambda: gedi(eos_token_ids=EOS), "eos_token_ids must be a list of token ids"),
        (lambda: gedi(least=0), "least must be a whole number of at least 1"),
        (lambda: gedi(least=2.5), "least must be a whole number of at least 1, got 2.5"),
        (lambda: fudged(eos_token_ids=[99]), r"eos_token_ids must lie in \[0, 5\), got \[99\]"),
        (lambda: fudged(eos_token_ids=[-1]), "eos_token_ids must lie in"),
        (lambda: fudged(eos_token_ids=["x"]), "eos_token_ids must be a list of token ids"),
        (lambda: fudged(size=0), "size must be a whole number of at least 1"),
        (lambda: fudged(size=-3), "size must be a whole number of at least 1"),
        (lambda: fudged(candidates=1.5), "candidates must be a whole number of at least 1, got 1.5"),
        (lambda: Prompted(TableModel(), keep=1.5), "keep must be a whole number of at least 0, got 1.5"),
        (lambda: dexperts(TableModel(), TableModel(), "x"), "alpha must be a finite number, got 'x'"),
        (lambda: cfg(TableModel(), TableModel(), None), "gamma must be a finite number, got None"),
        (lambda: contrastive(TableModel(), TableModel(), "x"), "plausibility must"),
        (lambda: plausible("x"), r"plausibility must lie in \(0, 1\], got 'x'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_no_bias_and_no_normalise_in_a_config_are_fine():
    assert of_config(bias=None).classes.bias == (0.0, 0.0, 0.0)
    assert of_config().classes.normalise is True


@pytest.mark.parametrize(
    ("token", "message"), [(3.7, "must be integers, got torch.float32"), (-1, "must be token ids, got -1")]
)
def test_tokens_that_are_none(token, message):
    potential = gedi()
    state = potential.init(torch.tensor([[1], [2]]))
    with pytest.raises(InputError, match=message):
        potential.step(state, torch.tensor([1, token]))
    with pytest.raises(InputError, match=message):
        potential.log_weights(state, torch.tensor([[0, 1], [2, token]]))


def test_rows_that_have_ended_take_any_token():
    potential = gedi()
    state = potential.step(potential.init(torch.tensor([[1], [2]])), torch.tensor([EOS, 1]))
    assert potential.log_weights(state, torch.tensor([[-1], [2]]))[0] == 0
    assert potential.step(state, torch.tensor([-1, 2])).finished.tolist() == [True, False]


def letters(*, turned):
    """A byte-level tokenizer of single bytes; turned, the letters a and b have one another's ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    one, two = alphabet.index("a"), alphabet.index("b")
    if turned:
        alphabet[one], alphabet[two] = "b", "a"
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def reading(tokenizer):
    lm = TableModel(size=257, eos=256)
    lm.tokenizer = tokenizer
    return lm


@pytest.mark.parametrize("ratio", [dexperts, cfg, contrastive])
def test_ratios_refuse_another_tokenizer(ratio):
    own = reading(letters(turned=False))
    with pytest.raises(
        VocabularyError, match=r"have different tokenizers: token \d+ is b'a' in one and b'b' in the other"
    ):
        ratio(own, reading(letters(turned=True)))
    for other in (letters(turned=False), None):
        ratio(own, reading(other))
        ratio(reading(other), own)
    ratio(own, Prompted(reading(letters(turned=False)), "a"))


def test_ratios_compare_no_tokenizer_that_cannot_be_read():
    dexperts(reading(object()), reading(letters(turned=False)))
