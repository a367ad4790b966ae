"""Folders of a class-conditional language model with damage in one file: they generate, or are refused."""

from __future__ import annotations

import base64
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrldecode.cli import _decoding, _models
from ctrldecode.cli._conditions import Conditions
from ctrldecode.cli._memory import is_of_memory
from tools.fuzz._damage import damaged
from tools.fuzz._models import model_folder

if TYPE_CHECKING:
    import random

__all__ = ["ClassLm"]


@cache
def _files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(model_folder().iterdir())}


class ClassLm:
    """The target."""

    name = "classlm"

    def make(self, rng: random.Random) -> dict[str, Any]:
        """The file that is damaged, and its bytes; None where it is missing, or a folder stands in its place."""
        name = rng.choice(sorted(_files()))
        kind = rng.random()
        if kind < 0.06:
            return {"file": name, "data": None, "folder": kind < 0.03}
        form = "safetensors" if name.endswith(".safetensors") else "json" if name.endswith(".json") else "text"
        return {"file": name, "data": base64.b64encode(damaged(rng, _files()[name], form)).decode()}

    def run(self, case: dict[str, Any]) -> str:
        """Load it as a model and as the judge of its own classes, and generate two tokens."""
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "judge"
            shutil.copytree(model_folder(), folder)
            path = folder / case["file"]
            path.unlink()
            if case["data"] is not None:
                path.write_bytes(base64.b64decode(case["data"]))
            elif case["folder"]:
                path.mkdir()
            try:
                loaded = _models.load(str(folder))
            except (RuntimeError, MemoryError) as error:
                if is_of_memory(error):  # which the command line tells
                    return "out of memory"
                raise
            potential = Conditions(guides=("x=3",)).potential(loaded, 2)
            settings = _decoding.Settings(num=1, beams=1, temperature=1.0, max_new_tokens=2, score=True)
            with _decoding.seeded(0):
                list(_decoding.decode(loaded, "ab", settings, potential))
        return "generated"
