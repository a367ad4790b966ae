"""Files of every kind that the library reads: what is damaged is refused, or ignored where it is a cache; never a traceback."""

from __future__ import annotations

import base64
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctrldecode import automata
from ctrldecode.cli._corpora import read_classes, read_labelled, read_texts
from ctrldecode.cli._hmms import described
from ctrldecode.core import _tries
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.distill import checkpoint, corpus
from ctrldecode.distill.em import EMState
from ctrldecode.distill.recipe import Recipe, read_prompts
from ctrldecode.grammar import Grammar
from ctrldecode.hmm import HMM, AttributeWeights, Lookahead, _table, from_ctrlg
from ctrldecode.kernels.tokens import trie as tries
from ctrldecode.samplers._trie import GrowingTrie, Seen, Trie
from tools.fuzz._damage import damaged
from tools.fuzz._models import small_hmm
from tools.fuzz._regexes import byte_vocabulary
from tools.fuzz._runner import Wrong

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["Files"]

_SHARD = corpus.Shard(0, held_out=False, start=0, rows=2, length=3, hidden=False)
_LINES = b'{"text": "a day", "label": 1}\n\n{"text": "\\u00e9", "score": 0.25}\n{"text": "b", "label": 0, "x": [1]}\n'
_CLASSES = b'{"text": "a day", "label": "good"}\n{"text": "b", "label": "bad"}\n'
_RECIPE = b'model = "tinytales"\nstates = 8\nseed = 3\n[[samples]]\nsequences = 10\nlength = 4\nprompts = ["a", ""]\n[[samples]]\nsequences = 5\n'


class Files:
    """The target."""

    name = "files"

    def make(self, rng: random.Random) -> dict[str, Any]:
        """A kind of file, and its bytes with damage."""
        name = rng.choice(sorted(_KINDS))
        whole = _whole()[name]
        form = "safetensors" if whole[8:9] == b"{" else "json" if name == "ctrlg config" else "text"
        return {"kind": name, "data": base64.b64encode(damaged(rng, whole, form)).decode()}

    def run(self, case: dict[str, Any]) -> str:
        """Read it, and use what was read."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("file.jsonl" if case["kind"] in {"texts", "labelled", "classes"} else "file")
            path.write_bytes(base64.b64decode(case["data"]))
            _KINDS[case["kind"]](path)
        return "read"


@cache
def _whole() -> dict[str, bytes]:
    """A file of every kind, as the library writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        return {name: _written(name, path) for name in _KINDS}


def _written(name: str, path: Path) -> bytes:
    vocabulary = byte_vocabulary()
    if name in _PLAIN:
        return _PLAIN[name]
    if name.startswith("hmm"):
        small_hmm(name.removeprefix("hmm ")).save(path)
    elif name == "attribute":
        values = torch.linspace(0.5, 1.0, vocabulary.size)
        AttributeWeights(values, vocabulary.eos_token_ids, vocabulary_fingerprint=vocabulary.fingerprint).save(path)
    elif name == "trie":
        _learned().save(path)
    elif name == "token trie":
        _tries._save(path, tries.build(_many().tokens))  # noqa: SLF001
    elif name == "lookahead table":
        _lookahead(path.parent)
        path = next(path.parent.glob("lookahead-*"))
    elif name == "checkpoint":
        state = EMState(torch.ones(2) / 2, torch.ones(2, 2) / 2, torch.ones(3, 2) / 3, 4)
        checkpoint.save(path, checkpoint.Checkpoint(state, (3.0, 2.0), finished=False), "digest")
    elif name == "shard":
        sampled = {"tokens": torch.zeros(2, 3, dtype=torch.int32), "given": torch.zeros(2, dtype=torch.int32), "log_probs": torch.zeros(2, 3)}  # fmt: skip
        corpus.write_tensors(path, sampled, {"digest": "digest", "shard": json.dumps(list(_SHARD))})
    else:
        path = _ctrlg(path.parent) / ("config.json" if name == "ctrlg config" else "model.safetensors")
    return path.read_bytes()


def _ctrlg(folder: Path) -> Path:
    from safetensors.torch import save_file

    states = 3
    beta = torch.full((states, 5), 0.2).log()
    save_file({"alpha_exp": torch.ones(states, states) / states, "beta": beta, "gamma": torch.zeros(states)}, folder / "model.safetensors")  # fmt: skip
    config = {"eos_token_id": 4, "hidden_states": 3, "vocab_size": 5, "architectures": ["HMM"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="ascii")
    return folder


@cache
def _many() -> Vocabulary:
    """As many tokens as make a trie worth keeping."""
    return Vocabulary([*(bytes([a, b]) for a in range(97, 97 + 26) for b in range(200)), None], {26 * 200})


def _learned() -> Trie:
    """A trie that knows two texts."""
    trie = GrowingTrie(Trie(10, 4, [9], "key"))
    for ids in ([1, 2], [1, 3, 9]):
        count = len(ids)
        trie.insert(
            (5,), Seen(np.array(ids), np.full(count, -1.0, np.float32), np.full(count + 1, -0.5), np.full(count, -2.0))
        )
    return trie.frozen()


def _lookahead(folder: Path) -> None:
    """Make a lookahead whose table is kept in a folder; what is there of it is read."""
    dfa = automata.contains(byte_vocabulary(), ["ab"])
    made = Lookahead(small_hmm(), dfa, max_new_tokens=4, cache_dir=folder)
    state = made.init(torch.tensor([[97]]), budget=torch.tensor([4]))
    if bool(made.log_weights(state).isnan().any()):
        raise Wrong("lookahead: a damaged table was used")


def _read_hmm(path: Path) -> None:
    hmm = HMM.load(path, byte_vocabulary())
    hmm.sample(2, 4, np.random.default_rng(0))
    log_prob = hmm.log_prob([[97, 98], [256]])
    described(hmm, str(path))
    if bool((log_prob.isnan() | (log_prob > 1e-6)).any()):
        raise Wrong(f"hmm: no probabilities in {hmm!r}")


def _read_attribute(path: Path) -> None:
    AttributeWeights.load(path, byte_vocabulary()).log_score([[97, 98]])


def _read_trie(path: Path) -> None:
    trie = Trie.load(path)
    trie.log_future([5], [1, 3])
    grown = GrowingTrie(trie)
    grown.insert((5,), Seen(np.array([1]), np.zeros(1, np.float32) - 1, np.zeros(2) - 1, np.zeros(1) - 1))
    trie.merge(trie)


def _read_token_trie(path: Path) -> None:
    found = _tries._load(path, _many())  # noqa: SLF001
    whole = tries.build(_many().tokens)
    if found is not None and not (np.array_equal(found.table, whole.table) and np.array_equal(found.ids, whole.ids)):
        raise Wrong("token trie: a damaged file was taken for whole")


def _read_table(path: Path) -> None:
    _table._kept.clear()  # noqa: SLF001  so that the file is read
    _lookahead(path.parent / "made")
    made = next((path.parent / "made").glob("lookahead-*"))
    path.rename(made)
    _table._kept.clear()  # noqa: SLF001
    _lookahead(made.parent)


def _read_checkpoint(path: Path) -> None:
    checkpoint.load(path, "digest")


def _read_shard(path: Path) -> None:
    path.rename(path.with_name(_SHARD.name))
    corpus.missing(path.parent, [_SHARD], "digest")
    corpus.read(path.parent, _SHARD)


def _read_log(path: Path) -> None:
    checkpoint.Log(path, 3)


def _read_ctrlg(path: Path, name: str) -> None:
    _ctrlg(path.parent)
    path.rename(path.with_name(name))
    from_ctrlg(path.parent)


_PLAIN = {
    "recipe": _RECIPE,
    "prompts": b"a day\n\nb\n",
    "texts": _LINES,
    "labelled": b"".join(line + b"\n" for line in _LINES.split(b"\n") if line),
    "classes": _CLASSES,
    "grammar": b'start: "a" start | B\nB: /[a-z\xc3\xa9]+/\n%import common.WS\n%ignore WS\n',
    "log": b'{"update": 1, "held_out": 3.0}\n{"update": 2, "held_out": 2.5}\n',
}
_KINDS: dict[str, Callable[[Path], object]] = {
    "hmm float32": _read_hmm,
    "hmm float16": _read_hmm,
    "hmm uint8": _read_hmm,
    "attribute": _read_attribute,
    "trie": _read_trie,
    "token trie": _read_token_trie,
    "lookahead table": _read_table,
    "checkpoint": _read_checkpoint,
    "shard": _read_shard,
    "log": _read_log,
    "ctrlg config": lambda path: _read_ctrlg(path, "config.json"),
    "ctrlg weights": lambda path: _read_ctrlg(path, "model.safetensors"),
    "recipe": Recipe.from_toml,
    "prompts": read_prompts,
    "texts": read_texts,
    "labelled": read_labelled,
    "classes": lambda path: read_classes(path, ["good", "bad"]),
    "grammar": lambda path: Grammar.from_file(path).compile(byte_vocabulary()),
}
