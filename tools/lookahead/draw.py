"""Draws the concept sets: three to five words that stand together in a held-out story. Writes `concepts.txt`, one set a line.

python -m tools.lookahead.draw
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from pathlib import Path

from tools.tinytales.corpus import read_stories, split

HERE = Path(__file__).resolve().parent
SETS = 200
SEED = 0
# Words of at least this many of the training stories, of 26,547, are ones that the model can be expected to know; the most
# frequent ones are said in nearly any story and would make a set easy.
_LEAST_STORIES = 150
_FUNCTION_WORDS = 300
_WORD = re.compile(r"(?<![\w'])[A-Za-z]+(?![\w'])")


def main() -> None:
    """Draw the sets."""
    shared = Path(os.environ.get("CTRLDECODE_SHARED", "../shared"))
    known, held_out = split(read_stories(shared / "corpora" / "stories.txt.gz"))
    stories = Counter(word for story in known for word in set(_WORD.findall(story)))
    frequent = {word for word, _ in stories.most_common(_FUNCTION_WORDS)}
    wanted = {
        word
        for word, count in stories.items()
        if word.islower() and len(word) >= 3 and count >= _LEAST_STORIES and word not in frequent
    }
    rng = random.Random(SEED)
    sets: list[str] = []
    for story in held_out:
        words = sorted(wanted.intersection(_WORD.findall(story)))
        size = 3 + len(sets) % 3
        if len(words) >= size and len(sets) < SETS:
            sets.append(" ".join(rng.sample(words, size)))
    (HERE / "concepts.txt").write_text("\n".join(sets) + "\n")
    print(f"{len(sets)} sets; {sets[:5]}")


if __name__ == "__main__":
    main()
