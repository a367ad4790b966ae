"""The class LM that comes with the package: its size, its contract, and that it tells moods."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctrldecode._resources import model_path
from ctrldecode.training.codes import Codes
from ctrldecode.training.data import encode
from ctrldecode.training.posterior import Posterior, evidence

NAMES = ("happy", "sad")
LARGEST_FOLDER = 4_000_000  # bytes
STORIES = {
    "happy": "Once upon a time, there was a girl named Lily. She had a red ball. One day, she lost the ball and was sad. Her friend "
    "found it. Lily was very happy and hugged her friend. They played together and laughed all day. They were happy and had "
    "so much fun.",
    "sad": "Once upon a time, there was a girl named Lily. She had a red ball. One day, she lost the ball. She looked for it, but she "
    "could not find it. Lily was very sad and cried. She never saw her ball again. She was alone and very sad.",
}


def test_tinytales_moods(tinytales_tokenizer) -> None:
    folder = model_path("tinytales-moods")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LARGEST_FOLDER
    assert (folder / "README.md").is_file()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_vocab() == tinytales_tokenizer.get_vocab()
    assert model.config.vocab_size == 3072
    gedi = model.config.gedi
    codes = Codes.of(tokenizer, NAMES)
    assert gedi["codes"] == {"happy": [1], "sad": [2]}
    assert (gedi["start"], gedi["normalise"]) == ([0], True)
    assert codes.start == (0,)
    posterior = Posterior(gedi["scale"], tuple(gedi["bias"][name] for name in NAMES))
    texts = encode(tokenizer, [STORIES[name] for name in NAMES], [0, 1], codes, 0, 512)
    for found in evidence(model, codes, texts):
        assert posterior.log_probs(found.mean(None)[None])[0, found.label].exp() > 0.7
