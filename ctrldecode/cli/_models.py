"""Loads models, tokenizers and grammars for the commands. It imports transformers, so commands import it when called."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from ctrldecode._resources import grammar_path, model_names, model_path
from ctrldecode.cli._memory import is_of_memory
from ctrldecode.cli._panics import is_panic
from ctrldecode.core._letters import letters
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import ModelError
from ctrldecode.grammar.grammar import Grammar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.core.potential import Potential

__all__ = ["Loaded", "load"]

_MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Loaded:
    """A causal language model that is ready to generate, with its tokenizer.

    Attributes:
        name: what the user called it.
        model: in evaluation mode, with a generation config that names special tokens and nothing else.
        tokenizer: its tokenizer.
        eos_token_ids: the ids that end a text.
    """

    name: str
    model: Any
    tokenizer: Any
    eos_token_ids: tuple[int, ...]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The bytes of its tokens, as wide as its head."""
        head: Any = self.model.get_output_embeddings()
        return Vocabulary.from_tokenizer(self.tokenizer, size=head.weight.shape[0], eos_token_ids=self.eos_token_ids)

    def encoded(self, texts: Sequence[str], *, control_tokens: bool, first: int = 1) -> list[list[int]]:
        """Ids of texts of users, without what a tokenizer puts around them.

        Args:
            texts: some of a file of texts.
            control_tokens: whether what spells a control token is that token, and not letters.
            first: number of the first text in the file.

        Raises:
            InputError: letters were wanted, and the tokenizer makes a control token of some.
        """
        if not control_tokens:
            return letters(self.tokenizer, texts, first=first)
        return self.tokenizer(list(texts), add_special_tokens=False).input_ids

    def compile(self, grammar: str, max_ignored: int | None = None, parser: str = "auto") -> Potential[Any]:
        """The potential of a shipped grammar, or of a grammar file, over this model's tokens."""
        return Grammar.from_file(grammar_path(grammar), parser=parser).compile(self.vocabulary, max_ignored=max_ignored)


def load(name: str) -> Loaded:
    """Load an embedded model, a folder, or a model of the Hugging Face hub.

    Half precision is kept on a GPU; on a CPU float16 becomes float32, which is faster there and exact.

    Raises:
        ModelError: there is no such model, its files are damaged, or it cannot be used; with what transformers says about it.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source = str(model_path(name)) if name in model_names() else name
    try:
        _check_layers(AutoConfig.from_pretrained(source, trust_remote_code=False))
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        found: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype="auto",
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in what it reports, and told below
        )
        model, report = found
        eos = _eos_token_ids(model, tokenizer)
        model = _prepared(model, tokenizer, eos)
        wrong = _missing(report) or _unusable(model, tokenizer)
    except BaseException as error:  # damaged files make transformers raise every kind, and tokenizers panic
        if is_of_memory(error) or not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise ModelError(
            f"the model {name!r} cannot be loaded; wanted one of {', '.join(model_names())}, a folder with config.json, "
            f"weights and tokenizer, or a model id of the Hugging Face hub. transformers says:\n{_indented(error)}"
        ) from error
    if wrong:
        raise ModelError(f"the model {name!r} is damaged: {wrong}; copy or download it again")
    if not eos:
        raise ModelError(
            f"the model {name!r} names no end-of-sequence token, so no text could end; set eos_token_id in its "
            "generation_config.json"
        )
    return Loaded(name, model, tokenizer, eos)


def _check_layers(config: Any) -> None:
    """Transformers makes the layers before it looks at the weights, which takes hours where a number in the config is damaged."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise ValueError(f"its config.json wants {layers} layers")


def _missing(report: Any) -> str:
    """What is wrong with the weights that were found: transformers would draw those that are not there at random."""
    missing = sorted(map(str, report["missing_keys"])) + sorted(str(key) for key, *_ in report["mismatched_keys"])
    if not missing:
        return ""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"weights are missing, or have another shape than config.json says: {', '.join(missing[:3])}{more}"


@torch.inference_mode()
def _unusable(model: Any, tokenizer: Any) -> str:
    """What is wrong with the distribution behind one token; it takes less than 1% of a first load (docs/robustness.md)."""
    begin = (tokenizer("a").input_ids or [0])[:1]
    logits: torch.Tensor = model(torch.tensor([begin], device=model.device), use_cache=False).logits
    width = model.get_output_embeddings().weight.shape[0]
    if logits.shape != (1, 1, width):
        return f"it gives scores of shape {tuple(logits.shape)} where {(1, 1, width)} is wanted"
    return "" if bool(logits.isfinite().all()) else "its weights give scores that are no numbers"


def _prepared(model: Any, tokenizer: Any, eos: tuple[int, ...]) -> Any:
    """Place the model, and drop its house rules of sampling (top-k, repetition penalty ...): they would void log-weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and model.dtype == torch.float16:
        model = model.float()
    pad = next(iter(eos), None) if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=list(eos), pad_token_id=pad
    )
    return model.to(device).eval()


def _eos_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """All ids that end a text: the model's own list where it has one, else the tokenizer's."""
    named = model.generation_config.eos_token_id
    named = tokenizer.eos_token_id if named is None else named
    return tuple(sorted({named} if isinstance(named, int) else set(named or ())))


def _indented(error: BaseException) -> str:
    """The first lines of a foreign message; the rest tends to be advice for programmers."""
    text = str(error).strip() or type(error).__name__
    return "\n".join(f"  {line}" for line in text.splitlines()[:4])
