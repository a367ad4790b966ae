"""tinytales: the rules of its corpus, and the embedded model as users load it."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools.tinytales.agreement import confusion, read_labels
from tools.tinytales.cards import Card, card_line, card_of, load_lists, parse_card
from tools.tinytales.corpus import Forms, document, forms_of, read_stories, split
from tools.tinytales.mood import mood_of, mood_score
from tools.tinytales.packing import PADDING, pack, rows_of
from tools.tinytales.tokens import CARD, CONTEXT, END, HAPPY, MODEL_FOLDER, SAD, SPECIAL, corpus_path
from tools.tinytales.train import batches, rate_at

STORY = (
    "Once upon a time, there was a little girl named Lily. Lily had a teddy bear and a red ball. When her dog saw two "
    "butterflies, it ran to the tree. Lily laughed and hugged her dog. They were happy."
)
SAD_STORY = "Once there was a bunny named Benny. Benny lost his carrot. He was very sad and cried. He was not happy."
LARGEST_FOLDER = 8_000_000  # bytes: what the embedded model may weigh
CARD_DOCUMENT = Path(__file__).parents[2] / "tools" / "tinytales" / "CARD.md"


# ---------------------------------------------------------------------------------------------------------------- cards


def test_card_of_a_story():
    assert card_of(STORY) == Card("Lily", "girl", ("dog", "butterfly"), ("teddy", "ball", "tree"), "happy")


def test_card_leaves_out_the_heros_own_kind_and_knows_other_spellings():
    assert card_of(SAD_STORY) == Card("Benny", "rabbit", (), ("carrot",), "sad")


@pytest.mark.parametrize(
    "story",
    [
        "There was a big red train. The train was fast.",
        "A girl named Lily came.",
        "A man named Mr Brown. Mr Brown ran.",
    ],
    ids=["nobody named", "named once only", "a title is no name"],
)
def test_no_card_without_a_hero(story):
    assert card_of(story) is None


def test_words_inside_other_words_do_not_count():
    story = "There was a boy named Tim. When Tim spoke to That carpenter, they began. Then Tim sat."
    card = card_of(story)
    assert card is not None
    assert (card.animals, card.things) == ((), ())


def test_at_most_three_of_a_list():
    card = card_of("There was a boy named Tim. Tim saw a cat, a dog, two mice and a fox.")
    assert card is not None
    assert card.animals == ("cat", "dog", "mouse")


def test_card_line_is_read_back():
    card = Card("Lily", "girl", ("cat", "dog"), ("ball",), "happy")
    line = '{"hero": "Lily", "kind": "girl", "animals": ["cat", "dog"], "things": ["ball"], "mood": "happy"}'
    assert card_line(card) == line
    assert parse_card(line) == card


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        '{"hero": "Lily"}',
        '{"kind": "girl", "hero": "Lily", "animals": [], "things": [], "mood": "happy"}',
        '{"hero": "lily", "kind": "girl", "animals": [], "things": [], "mood": "happy"}',
        '{"hero": 1, "kind": "girl", "animals": [], "things": [], "mood": "happy"}',
        '{"hero": "Lily", "kind": "train", "animals": [], "things": [], "mood": "happy"}',
        '{"hero": "Lily", "kind": ["girl"], "animals": [], "things": [], "mood": "happy"}',
        '{"hero": "Lily", "kind": "girl", "animals": ["ball"], "things": [], "mood": "happy"}',
        '{"hero": "Lily", "kind": "girl", "animals": ["cat", "dog", "fox", "owl"], "things": [], "mood": "happy"}',
        '{"hero": "Lily", "kind": "girl", "animals": [], "things": "ball", "mood": "happy"}',
        '{"hero": "Lily", "kind": "girl", "animals": [], "things": [], "mood": "glad"}',
        '{"hero":"Lily","kind":"girl","animals":[],"things":[],"mood":"happy"}',
        '{"hero": "Lily", "kind": "girl", "animals": ["cat"], "animals": [], "things": [], "mood": "happy"}',
    ],
)
def test_what_is_no_card(line):
    assert parse_card(line) is None


def test_word_lists_are_lower_case_distinct_and_short():
    lists = load_lists()
    for words in (lists.kinds, lists.animals, lists.things, lists.moods):
        assert all(re.fullmatch(r"[a-z]+", word) for word in words)
        assert len(set(words)) == len(words)
    assert len(lists.kinds) <= 16
    assert set(lists.kind_words.values()) == set(lists.kinds)
    assert set(lists.animal_words.values()) == set(lists.animals)
    assert set(lists.thing_words.values()) == set(lists.things)


def test_examples_of_the_card_document_are_cards():
    lines = re.findall(r'^\{"hero".*\}$', CARD_DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 5
    assert [card_line(parse_card(line)) for line in lines] == lines


def test_regular_expression_of_the_card_document_matches_cards():
    pattern = re.search(r'^\\\{"hero".*$', CARD_DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    lists = load_lists()
    expression = pattern[0]
    for name, words in (("KIND", lists.kinds), ("ANIMAL", lists.animals), ("THING", lists.things)):
        expression = expression.replace(name, f"(?:{'|'.join(words)})")
    assert re.fullmatch(expression, card_line(card_of(STORY)))
    assert re.fullmatch(expression, card_line(card_of(SAD_STORY)))


# ----------------------------------------------------------------------------------------------------------------- mood


def test_moods():
    assert mood_of(STORY) == "happy"
    assert mood_of(SAD_STORY) == "sad"
    assert mood_of("He went to the shop. It was a shop.") == "neutral"


def test_the_end_of_a_story_counts_most():
    assert mood_of("She cried. " + "They walked. " * 9 + "She laughed.") == "happy"
    assert mood_of("She laughed. " + "They walked. " * 9 + "She cried.") == "sad"


def test_negation():
    assert mood_score("He was not happy.") < 0
    assert mood_score("Don't be sad.") == 0


def test_empty_story_has_no_mood():
    assert mood_of("") == "neutral"


def test_recorded_labels_are_moods_in_two_rounds_of_a_hundred():
    readings = read_labels()
    moods = set(load_lists().moods)
    assert {reading.reader for reading in readings} | {reading.lexicon for reading in readings} == moods
    assert [sum(reading.round == number for reading in readings) for number in (1, 2)] == [100, 100]
    assert len({reading.story for reading in readings}) == 200


def test_confusion_counts_pairs():
    readings = read_labels()
    assert confusion(readings).total() == len(readings)


# --------------------------------------------------------------------------------------------------- documents and rows


def test_every_form_of_document_occurs():
    forms = forms_of(STORY)
    card = card_line(card_of(STORY))
    seen = {document(forms, random.Random(seed)) for seed in range(200)}
    assert seen == {STORY, HAPPY + STORY, STORY + CARD + card, CARD + card}


def test_a_story_without_mood_or_card_stays_plain():
    assert {document(Forms("He went.", "", ""), random.Random(seed)) for seed in range(50)} == {"He went."}


def test_split_holds_out_the_end():
    training, held_out = split([str(number) for number in range(300)])
    assert (training[-1], held_out) == ("296", ["297", "298", "299"])


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), max_size=40))
@settings(max_examples=50, deadline=None)
def test_packing_loses_and_cuts_nothing_that_fits(documents):
    rows = pack(documents, 12)
    assert all(len(row) <= 12 for row in rows)
    assert sorted(token for row in rows for token in row) == sorted(token for one in documents for token in one)


def test_packing_cuts_what_never_fits():
    assert pack([[1, 2, 3, 4]], 3) == [[1, 2, 3]]


def test_rows_begin_mostly_with_the_end_token_and_are_padded():
    rows = rows_of([[1, 2, 3]] * 400, end=0, length=6, rng=random.Random(0))
    assert rows.shape == (400, 6)
    begun = (rows[:, 0] == 0).sum()
    assert 240 < begun < 320  # 0.7 of 400 within four sigma
    assert all((row[row != PADDING] == ([0, 1, 2, 3, 0] if row[0] == 0 else [1, 2, 3, 0])).all() for row in rows)


def test_batches_go_on_where_they_were_cut_off(tokenizer):
    forms = [forms_of(STORY), forms_of(SAD_STORY)] * 20
    source = batches(forms, tokenizer, rows=2, start=0)
    from_start = [next(source) for _ in range(8)]
    later = batches(forms, tokenizer, rows=2, start=5)
    assert all((next(later) == batch).all() for batch in from_start[5:])


def test_learning_rate_rises_stays_and_falls_to_zero():
    assert rate_at(0, 0.0, 0.4) == pytest.approx(0.01)
    assert rate_at(1000, 0.5, 0.4) == 1.0
    assert rate_at(1000, 0.8, 0.4) == pytest.approx(0.5)
    assert rate_at(1000, 1.0, 0.4) == 0.0


# ------------------------------------------------------------------------------------------------------------ the model


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32).eval()


@given(text=st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_tokenizer_round_trips_any_text(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_special_tokens(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (END, END, END)
    assert tokenizer(f"{SAD}A").input_ids[0] == 2
    assert tokenizer("A").input_ids[0] > 3  # no begin token is added


def test_every_byte_has_a_token(tokenizer):
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(ByteLevel.alphabet()) <= set(tokenizer.get_vocab())


def test_model_matches_its_tokenizer(model, tokenizer):
    assert model.config.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert model.config.max_position_embeddings == CONTEXT


def test_folder_is_small():
    assert sum(path.stat().st_size for path in MODEL_FOLDER.iterdir()) <= LARGEST_FOLDER


def test_weights_are_half_precision_and_finite():
    half = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    assert {weight.dtype for weight in half.parameters()} == {torch.float16}
    assert all(torch.isfinite(weight).all() for weight in half.parameters())


def test_it_tells_a_story(model, tokenizer):
    prompt = tokenizer(f"{END}Once upon a time", return_tensors="pt")
    row = model.generate(**prompt, max_new_tokens=30, do_sample=False)
    assert tokenizer.decode(row[0]).startswith(f"{END}Once upon a time, there was a")


def test_it_writes_a_card(model, tokenizer):
    prompt = tokenizer(f"{END}{STORY}{CARD}", return_tensors="pt")
    row = model.generate(**prompt, max_new_tokens=80, do_sample=False)
    card = parse_card(tokenizer.decode(row[0, prompt.input_ids.shape[1] :]).removesuffix(END))
    assert card is not None
    assert (card.hero, card.kind) == ("Lily", "girl")


# ----------------------------------------------------------------------------------------------------------- the corpus


@pytest.fixture(scope="module")
def stories():
    if not corpus_path().is_file():
        pytest.skip("the corpus is not here; set CTRLDECODE_SHARED to the folder that has corpora/stories.txt.gz")
    return read_stories(corpus_path())


def test_recorded_lexicon_labels_are_current(stories):
    assert all(reading.lexicon == mood_of(stories[reading.story]) for reading in read_labels())


def test_cards_of_the_corpus_are_valid(stories):
    cards = [card for story in split(stories)[1] if (card := card_of(story))]
    assert len(cards) > 200
    assert all(parse_card(card_line(card)) == card for card in cards)


def test_no_story_with_its_card_is_longer_than_the_context(stories, tokenizer):
    texts = [forms.story + CARD + forms.card for forms in map(forms_of, split(stories)[1])]
    assert max(map(len, tokenizer(texts).input_ids)) + 2 <= CONTEXT
