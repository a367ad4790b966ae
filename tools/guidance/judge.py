"""A judge of moods that guidance knows nothing of: a bag of words, fitted to stories that no class LM was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Binarizer

from tools.tinytales.corpus import read_stories, split
from tools.tinytales.mood import mood_of
from tools.tinytales.tokens import corpus_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Judge", "prompts"]

_TAIL = 5000  # stories at the end of the corpus that tools.moods keeps from the class LM; the judge is fitted to them
_WORDS = 12  # of a story, as its prompt: who and where, and nothing has happened yet
_SEED = 0
_PENALTY = 0.02  # the best of 0.02, 0.05 and 0.2 in cross-validation: 0.912, 0.905, 0.889


class Judge:
    """P(mood | text) by logistic regression on which words occur in happy and sad stories, classes balanced.

    Attributes:
        accuracy: balanced accuracy in five-fold cross-validation.
    """

    def __init__(self, mood: str) -> None:
        known, _ = split(read_stories(corpus_path()))
        labelled = [(story, mood_of(story)) for story in known[-_TAIL:]]
        texts = [story for story, found in labelled if found != "neutral"]
        labels = np.array([found == mood for _, found in labelled if found != "neutral"])
        self.accuracy = float(np.mean(cross_val_score(_model(), texts, labels, scoring="balanced_accuracy", cv=5)))
        self._model = _model().fit(texts, labels)

    def share(self, texts: Sequence[str]) -> float:
        """The share of texts that it takes for the mood."""
        return float(np.mean(self._model.predict(list(texts))))


def _model() -> Pipeline:
    regression = LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=1000, random_state=_SEED)
    return make_pipeline(CountVectorizer(min_df=3), Binarizer(), regression)


def prompts(count: int) -> list[str]:
    """The first words of stories that nothing was trained on."""
    _, held_out = split(read_stories(corpus_path()))
    return [" ".join(story.split()[:_WORDS]) for story in held_out[:count]]
