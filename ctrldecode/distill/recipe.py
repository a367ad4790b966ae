"""`Recipe`: everything that decides what a distillation makes, as a value that is read from and written to TOML.

It knows no model and touches no other file than those it is asked to read.
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ctrldecode.errors import DistillationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Recipe", "Samples", "read_prompts"]

DTYPES = ("float32", "float16", "uint8")

# Whole numbers of a recipe, and the least that each may be.
_WHOLE = {"states": 2, "held_out": 1, "clustered": 1, "passes": 1, "update": 1, "batch": 1, "seed": 0}


@dataclass(frozen=True)
class Samples:
    """One kind of text to sample.

    Attributes:
        sequences: how many.
        length: new tokens of each, the end of sequence among them.
        prompts: texts to continue, in turn; the empty one is the beginning of a text.
    """

    sequences: int = 100_000
    length: int = 64
    prompts: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Recipe:
    """What is sampled, how large the hidden Markov model is, and how it is fitted.

    Attributes:
        model: name, folder or hub id of the language model.
        states: H, of which the last one is the end of sequence.
        samples: the kinds of text.
        temperature: of the sampling; 1 is the language model itself.
        held_out: sequences that are sampled beside, for measuring.
        clustered: sequences whose hidden states start the model.
        passes: over the training sequences, at most; the last one is a single update.
        update: sequences between two updates of the model in the other passes. An update also costs a few passes over the
            V × H numbers of the emission matrix, so a large vocabulary wants more.
        forgetting: the k-th update replaces the fraction (k + 2)^−forgetting of what was learnt; in (0.5, 1].
        token_dropout: fraction of tokens that an E-step does not see, in [0, 1).
        emission_prior: pseudo-tokens a state, spread as the tokens of the texts are.
        transition_prior: pseudo-moves a state, spread evenly.
        tolerance: a pass that gains fewer held-out nats a token is followed by the last one.
        batch: sequences that are sampled, or run through the E-step, at a time; only memory and speed depend on it.
        seed: of all random numbers.
        dtype: how the emission matrix is stored: float32, float16 or uint8.

    Raises:
        DistillationError: a value is out of its range, or of another type.
    """

    model: str = "tinytales"
    states: int = 256
    samples: tuple[Samples, ...] = (Samples(),)
    temperature: float = 1.0
    held_out: int = 1000
    clustered: int = 3000
    passes: int = 5
    update: int = 50
    forgetting: float = 0.55
    token_dropout: float = 0.0
    emission_prior: float = 20.0
    transition_prior: float = 10.0
    tolerance: float = 0.002
    batch: int = 250
    seed: int = 0
    dtype: str = "float16"

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            _require_whole(getattr(self, name), name, least)
        for name in ("temperature", "emission_prior", "transition_prior"):
            value = getattr(self, name)
            _require(_is_number(value) and value > 0, name, "a positive, finite number", value)
        for name in ("forgetting", "token_dropout", "tolerance"):
            _require(_is_number(getattr(self, name)), name, "a finite number", getattr(self, name))
        _require(0.5 < self.forgetting <= 1, "forgetting", "in (0.5, 1]", self.forgetting)
        _require(0 <= self.token_dropout < 1, "token_dropout", "in [0, 1)", self.token_dropout)
        _require(_is_text(self.model), "model", "a text", self.model)
        _require(self.dtype in DTYPES, "dtype", f"one of {', '.join(DTYPES)}", self.dtype)
        _require(bool(self.samples), "samples", "at least one kind of text", self.samples)
        for kind in self.samples:
            _check_samples(kind)

    @property
    def sequences(self) -> int:
        """Training sequences of all kinds."""
        return sum(kind.sequences for kind in self.samples)

    @classmethod
    def from_toml(cls, path: Path) -> Recipe:
        """Read a recipe; what it does not name keeps its default.

        `prompts` of a `[[samples]]` table is a list of texts, or the name of a file beside the recipe with one a line.

        Raises:
            DistillationError: the file cannot be read, or has an unknown name or a value out of range or of another type.
        """
        try:
            values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DistillationError(f"the recipe {path} cannot be read: {error}; wanted a TOML file") from error
        tables = _tables(path, values.pop("samples", [{}]))
        _check_names(path, values, {field.name for field in fields(cls)} - {"samples"})
        return cls(samples=tuple(_samples(path, table) for table in tables), **values)

    def to_toml(self) -> str:
        """The recipe as TOML that `from_toml` reads back."""
        values = asdict(self)
        tables = values.pop("samples")
        lines = [_line(name, value) for name, value in values.items()]
        for table in tables:
            lines += ["", "[[samples]]", *(_line(name, value) for name, value in table.items())]
        return "\n".join(lines) + "\n"

    def with_samples(self, **changes: Any) -> Recipe:
        """The recipe with values of its only kind of text replaced.

        Raises:
            DistillationError: there are several kinds, so that it is not clear which is meant.
        """
        if not changes:
            return self
        if len(self.samples) > 1:
            raise DistillationError(
                f"the recipe has {len(self.samples)} kinds of samples, so {', '.join(changes)} cannot be given beside it; "
                "change the recipe"
            )
        return replace(self, samples=(replace(next(iter(self.samples)), **changes),))


_MOST = 64 * 2**20  # bytes of a file of prompts, whose ids take some ten times as much


def read_prompts(path: Path) -> tuple[str, ...]:
    """The lines of a file that are not empty. A line ends with a line feed, in front of which a carriage return may stand.

    Raises:
        DistillationError: it cannot be read, is too large, or has none.
    """
    try:
        if path.stat().st_size > _MOST:
            raise DistillationError(
                f"the prompts {path} have more than {_MOST // 2**20} MiB, and all are held in memory; take some of them"
            )
        lines = path.read_bytes().decode().split("\n")
    except (OSError, ValueError) as error:
        raise DistillationError(f"the prompts {path} cannot be read: {error}; wanted a text file in UTF-8") from error
    prompts = tuple(line.removesuffix("\r") for line in lines if line.strip())
    if not prompts:
        raise DistillationError(
            f"the prompts {path} are empty; wanted one prompt a line. To sample texts from their beginning, give no prompts"
        )
    return prompts


def _tables(path: Path, found: object) -> list[dict[str, Any]]:
    """What `samples` holds, if it is a list of tables."""
    if isinstance(found, dict):
        raise DistillationError(
            f"the recipe {path} has the table [samples], wanted [[samples]], of which there may be several; double the brackets"
        )
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        raise DistillationError(f"the recipe {path} has samples = {found!r}, wanted tables headed by [[samples]]")
    return found


def _samples(path: Path, table: dict[str, Any]) -> Samples:
    _check_names(path, table, {field.name for field in fields(Samples)})
    values = dict(table)
    prompts: Any = values.get("prompts", [""])
    if isinstance(prompts, str):
        values["prompts"] = read_prompts(path.parent / prompts)
    else:
        _require(isinstance(prompts, list), "prompts", "a list of texts, or the name of a file", prompts)
        values["prompts"] = tuple(prompts)
    return Samples(**values)


def _check_samples(kind: Samples) -> None:
    _require_whole(kind.sequences, "sequences", 1)
    _require_whole(kind.length, "length", 2, "tokens, or there is no sequence to model")
    _require(bool(kind.prompts), "prompts", "at least one, which may be empty", kind.prompts)
    for prompt in kind.prompts:
        _require(_is_text(prompt), "a prompt", "a text", prompt)


def _check_names(path: Path, values: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise DistillationError(
            f"the recipe {path} has {', '.join(unknown)}, which means nothing here; wanted some of {', '.join(sorted(known))}"
        )


def _require(held: bool, name: str, wanted: str, got: object) -> None:
    if not held:
        raise DistillationError(f"{name} must be {wanted}, got {got!r}; change the recipe or the option")


def _require_whole(value: Any, name: str, least: int, of: str = "") -> None:
    _require(isinstance(value, int) and not isinstance(value, bool), name, "a whole number", value)
    _require(value >= least, name, f"at least {least} {of}".rstrip(), value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _line(name: str, value: Any) -> str:
    """A line of TOML: texts and numbers are written as in JSON, but that TOML takes no DEL as it is."""
    written = json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
    return f"{name} = {written}"
