"""Writes stories with the label of a mood by the lexicon, for `ctrldecode fit-attribute`.

python -m tools.lookahead.moods --mood happy --out happy.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from tools.tinytales.corpus import read_stories, split
from tools.tinytales.mood import mood_of


def main() -> None:
    """Write one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mood", choices=["happy", "neutral", "sad"], default="happy")
    parser.add_argument("--stories", type=int, default=8000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    shared = Path(os.environ.get("CTRLDECODE_SHARED", "../shared"))
    known, _ = split(read_stories(shared / "corpora" / "stories.txt.gz"))
    lines = [
        json.dumps({"text": story, "label": int(mood_of(story) == options.mood)}) for story in known[: options.stories]
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
