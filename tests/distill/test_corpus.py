from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctrldecode.distill import corpus
from ctrldecode.distill._files import read_metadata, read_tensors, write_bytes
from ctrldecode.errors import DistillationError
from tests.distill.runs import source
from tests.toys import tiny_llama

PARTS = [(50, 8), (7, 3)]


@pytest.fixture(scope="module")
def shards():
    return corpus.plan(PARTS, held_out=10, rows=20, hidden=15)


def test_a_plan_has_every_sequence_once(shards):
    for part, (sequences, length) in enumerate(PARTS):
        mine = sorted((s.start, s.rows) for s in shards if s.part == part and not s.held_out)
        assert [start for start, _ in mine] == [sum(rows for _, rows in mine[:i]) for i in range(len(mine))]
        assert sum(rows for _, rows in mine) == sequences
        assert {s.length for s in shards if s.part == part} == {length}
    assert sum(s.rows for s in shards if s.held_out) == 11  # ten, each part's share rounded up
    assert sum(s.rows for s in shards if s.hidden) >= 15
    assert len({s.name for s in shards}) == len(shards)


def test_shards_do_not_depend_on_order_or_company(tmp_path, shards):
    first, second = tmp_path / "a", tmp_path / "b"
    for shard in shards:
        corpus.make(source(), shard, first)
    for shard in reversed(corpus.missing(second, shards, source().digest)):
        corpus.make(source(), shard, second)
    assert not corpus.missing(second, shards, source().digest)
    for shard in shards:
        assert read_metadata(first / shard.name) == read_metadata(second / shard.name)
        tensors = read_tensors(first / shard.name)
        assert all(torch.equal(tensors[name], again) for name, again in read_tensors(second / shard.name).items())
        assert (corpus.read(first, shard).hidden is not None) == shard.hidden
    texts = [corpus.read(first, shard).tokens.tolist() for shard in shards]
    assert len({str(text) for text in texts}) == len(texts)


def test_shards_of_another_corpus_are_refused(tmp_path, shards):
    corpus.make(source(), shards[0], tmp_path)
    with pytest.raises(DistillationError, match="another model"):
        corpus.missing(tmp_path, shards, "0" * 64)
    with pytest.raises(DistillationError, match="another model"):
        corpus.missing(tmp_path, [shards[0]._replace(length=5)], source().digest)


def test_the_digest_knows_model_and_settings():
    plain = source()
    others = [
        dataclasses.replace(plain, model=tiny_llama(seed=1)),
        dataclasses.replace(plain, seed=1),
        dataclasses.replace(plain, temperature=0.5),
        dataclasses.replace(plain, prompts=(((3,),),)),
    ]
    assert len({other.digest for other in [plain, *others]}) == 5


def test_damaged_shards_are_told(tmp_path, shards):
    (tmp_path / shards[0].name).write_bytes(b"torn")
    with pytest.raises(DistillationError, match="--resume makes it again"):
        corpus.missing(tmp_path, shards, source().digest)


def test_a_shard_with_another_name_in_place_of_one_is_told(tmp_path, shards):
    corpus.make(source(), shards[0], tmp_path)
    path = tmp_path / shards[0].name
    about = read_metadata(path)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["log_probz"] = tensors.pop("log_probs")
    save_file(tensors, path, about)
    with pytest.raises(DistillationError, match="is damaged"):
        corpus.read(tmp_path, shards[0])


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DistillationError, match=r"No space left.*--resume"):
        write_bytes(path, b"new")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_metadata_names_the_shard(tmp_path, shards):
    corpus.make(source(), shards[0], tmp_path)
    about = read_metadata(tmp_path / shards[0].name)
    assert about["digest"] == source().digest
    tokens = corpus.read(tmp_path, shards[0]).tokens
    assert tokens.dtype == torch.int32
    assert tokens.shape == (shards[0].rows, shards[0].length)
