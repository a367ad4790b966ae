"""Fixtures for all tests: the shared folder, the embedded model, a tiny model of bytes, and how many threads torch uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctrldecode._resources import model_path
from ctrldecode.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _threads() -> Iterator[None]:
    """One thread a process: small matrices gain nothing from more, and test processes run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the package keeps on disk goes into a folder of the test run, and not into the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(autouse=True)
def _cuda(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of tokenizers, models and corpora that are not in the repository."""
    folder = Path(os.environ.get("CTRLDECODE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}; set CTRLDECODE_SHARED to where it is")
    return folder


@pytest.fixture(scope="session")
def tinytales() -> Any:
    """The embedded model, in float32."""
    return AutoModelForCausalLM.from_pretrained(model_path("tinytales"), dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tinytales_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(model_path("tinytales"))


@pytest.fixture(scope="session")
def tinytales_vocabulary(tinytales: Any, tinytales_tokenizer: Any) -> Vocabulary:
    return Vocabulary.from_tokenizer(tinytales_tokenizer, size=tinytales.config.vocab_size)
