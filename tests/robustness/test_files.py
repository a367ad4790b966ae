"""Damaged files are refused in plain words, or made anew where they are a cache; cut at every class of length, turned bit by bit."""

from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ctrldecode._resources import attribute_path, hmm_path
from ctrldecode.cli import _models
from ctrldecode.core import _tries
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.distill import checkpoint, corpus
from ctrldecode.distill.em import EMState
from ctrldecode.errors import CtrldecodeError, DistillationError, ModelError, VocabularyError
from ctrldecode.hmm import HMM, AttributeWeights
from ctrldecode.kernels.tokens import trie as tries
from tools.fuzz._models import model_folder, small_hmm
from tools.fuzz._regexes import byte_vocabulary


def saved(tmp_path, kind):
    path = tmp_path / "file.safetensors"
    if kind == "hmm":
        small_hmm().save(path)
        return path, HMM.load
    shutil.copy(attribute_path("happy"), path)
    return path, AttributeWeights.load


@pytest.mark.parametrize("kind", ["hmm", "attribute"])
def test_a_file_that_is_cut_is_refused_at_every_length(tmp_path, kind):
    path, load = saved(tmp_path, kind)
    whole = path.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    for length in {
        *range(12),
        8 + header // 2,
        7 + header,
        8 + header,
        9 + header,
        len(whole) // 2,
        *range(len(whole) - 9, len(whole)),
    }:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="damaged"):
            load(path)


@pytest.mark.parametrize("kind", ["hmm", "attribute"])
def test_a_bit_that_is_turned_in_the_numbers_is_noticed(tmp_path, kind):
    path, load = saved(tmp_path, kind)
    whole = path.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    rng = np.random.default_rng(0)
    for at in rng.integers(8 + header, len(whole), 40).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << int(rng.integers(8)))]) + whole[at + 1 :])
        with pytest.raises(ModelError, match="damaged"):
            load(path)


def changed_header(path, change):
    """The file with other metadata of ours, everything else as it was."""
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    about = json.loads(header["__metadata__"]["ctrldecode"])
    change(about)
    header["__metadata__"]["ctrldecode"] = json.dumps(about)
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + whole[8 + length :])


@pytest.mark.parametrize("value", [[], {}, 3, "x"])
def test_a_fingerprint_that_is_none_is_another_vocabulary(tmp_path, value):
    path = tmp_path / "file.safetensors"
    small_hmm().save(path)
    changed_header(path, lambda about: about.update(vocabulary_fingerprint=value))
    with pytest.raises(VocabularyError, match="other tokens"):
        HMM.load(path, byte_vocabulary())


@pytest.mark.parametrize("key", ["eos_token_ids", "dtype", "fingerprint", "made", "format"])
@pytest.mark.parametrize("value", [None, "x", [1e400], float("nan"), [[]], 10**30])
def test_metadata_that_are_odd_are_refused(tmp_path, key, value):
    path = tmp_path / "file.safetensors"
    small_hmm().save(path)
    changed_header(path, lambda about: about.update({key: value}))
    with pytest.raises(CtrldecodeError):
        HMM.load(path)


def many():
    return Vocabulary([*(bytes([a, b]) for a in range(97, 97 + 26) for b in range(200)), None], {26 * 200})


def test_a_token_trie_with_a_turned_bit_is_built_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole = tries.build(many().tokens)
    _tries.trie_of.cache_clear()
    _tries.trie_of(many())
    (path,) = (tmp_path / "ctrldecode").iterdir()
    data = path.read_bytes()
    for at in (len(data) - 1, len(data) // 2, len(data) - 4 * len(many().tokens)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        _tries.trie_of.cache_clear()
        found = _tries.trie_of(many())
        assert np.array_equal(found.table, whole.table)
        assert np.array_equal(found.ids, whole.ids)
        assert path.read_bytes() == data  # and the file is whole again
    _tries.trie_of.cache_clear()


@pytest.mark.parametrize("stand", ["", "[]", '{"updates": 1}', '{"updates": "x", "passes": [], "finished": true}', '{"updates": 1, "passes": 3, "finished": 1}'])  # fmt: skip
def test_a_checkpoint_that_is_odd_is_refused(tmp_path, stand):
    path = tmp_path / "c.safetensors"
    save_file({"initial": torch.ones(2), "transition": torch.ones(2, 2), "emission": torch.ones(3, 2)}, path, {"digest": "d", "stand": stand})  # fmt: skip
    with pytest.raises(DistillationError, match=r"damaged .*--resume"):
        checkpoint.load(path, "d")


def test_a_checkpoint_whose_tensors_do_not_fit_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(
        path,
        checkpoint.Checkpoint(EMState(torch.ones(2), torch.ones(2, 3), torch.ones(3, 2), 1), (), finished=False),
        "d",
    )
    with pytest.raises(DistillationError, match="do not fit together"):
        checkpoint.load(path, "d")


def test_lines_of_a_log_that_are_no_records_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\xff\xfe\n3\n[]\n{"held_out": 1}\n{"update": "x"}\n{"update": 1, "held_out": 2.0}\n{"upd')
    assert checkpoint.Log(path, 5).records == [{"update": 1, "held_out": 2.0}]


@pytest.mark.parametrize("about", [{"digest": "d"}, {"digest": "d", "shard": ""}, {"digest": "d", "shard": "[1]"}, {}])
def test_a_shard_of_other_metadata_is_refused(tmp_path, about):
    shard = corpus.Shard(0, held_out=False, start=0, rows=2, length=3, hidden=False)
    save_file({"tokens": torch.zeros(2, 3)}, tmp_path / shard.name, about)
    with pytest.raises(DistillationError, match="sampled from another model"):
        corpus.missing(tmp_path, [shard], "d")


def test_a_shard_without_its_tensors_is_refused(tmp_path):
    shard = corpus.Shard(0, held_out=False, start=0, rows=2, length=3, hidden=False)
    save_file({"tokens": torch.zeros(2, 3), "given": torch.zeros(3)}, tmp_path / shard.name)
    with pytest.raises(DistillationError, match="is not 2 rows"):
        corpus.read(tmp_path, shard)


def broken(tmp_path, change):
    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder)
    change(folder)
    return str(folder)


def without_a_weight(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path, {"format": "pt"})


def of_another_shape(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    save_file(tensors | {name: tensors[name][:-1].clone()}, path, {"format": "pt"})


def without_numbers(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for tensor in tensors.values():
        tensor.fill_(float("nan"))
    save_file(tensors, path, {"format": "pt"})


def with_config(**values):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def with_tokenizer(text):
    return lambda folder: (folder / "tokenizer.json").write_text(text)


def with_a_second_text(folder):
    """Tokenizers panics where a template for one text wants two, which is no `Exception`."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    pair = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": pair, "pair": pair, "special_tokens": {}}
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_a_second_text, "index out of bounds"),
        (without_a_weight, "is damaged: weights are missing"),
        (of_another_shape, "lm_head"),
        (without_numbers, "scores that are no numbers"),
        (with_config(hidden_act=1e308), "transformers says"),
        (with_config(num_attention_heads=0), "cannot be loaded"),
        (with_config(rope_parameters="x"), "cannot be loaded"),
        (with_config(num_hidden_layers=10**7), "wants 10000000 layers"),
        (with_tokenizer('{"version": "\\u0000"}'), "transformers says"),
        (with_tokenizer("[]"), "transformers says"),
        (lambda folder: (folder / "tokenizer_config.json").write_text('"F32"'), "transformers says"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"), "transformers says"),
    ],
)
def test_a_damaged_model_is_refused_when_it_is_loaded(tmp_path, change, told):
    with pytest.raises(ModelError, match=told):
        _models.load(broken(tmp_path, change))


def test_whole_files_are_read(tmp_path):
    assert HMM.load(hmm_path("tinytales-256")).states == 256
    assert _models.load(broken(tmp_path, lambda _: None)).eos_token_ids == (257,)
