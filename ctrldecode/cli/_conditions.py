"""Turns the options `--contains`, `--avoid`, `--words`, `--attribute`, `--hmm` and `--guide` into one potential."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import reduce
from operator import and_, mul
from typing import TYPE_CHECKING, Any

from ctrldecode import automata
from ctrldecode._resources import attribute_path, hmm_names, hmm_path
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.cli._guides import guidance
from ctrldecode.errors import InputError
from ctrldecode.grammar.joint import JointPotential
from ctrldecode.grammar.potential import GrammarPotential
from ctrldecode.guidance import ForbiddenTokens, GeDi
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM

if TYPE_CHECKING:
    from ctrldecode.automata.dfa import TokenDFA
    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.potential import Potential
    from ctrldecode.core.vocabulary import Vocabulary
    from ctrldecode.hmm.attributes import AttributeWeights

__all__ = ["Conditions"]

# The form of the lookahead for words that cost the language model least of what was tried, when texts are sampled. When beams search for one
# text, the exact form was the best (docs/lookahead.md).
_SAMPLED: dict[str, Any] = {"detail": 0.2, "patience": 8.0, "urgency": 0.8}


_MANY = frozenset({"contains", "avoid", "attributes", "guides"})  # options that may be given several times


@dataclass(frozen=True)
class Conditions:
    """What a text shall be like, as the user said it.

    Attributes:
        contains: words or phrases that must all stand in the text, alternatives separated by |.
        avoid: words or phrases that must not.
        words: how many words: "20", "20:30", "20:" or ":30".
        attributes: names or files of `AttributeWeights`.
        hmm: name or file of the HMM that looks ahead; None takes the one that was distilled from the model, if it comes with
            ctrldecode; "none" takes none.
        strength: the exponent of the lookahead; None for 1.
        guides: classes that texts lean towards, such as "happy=30".
        class_lm: name or folder of the model that tells these classes apart; None for the usual one.
    """

    contains: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    words: str | None = None
    attributes: tuple[str, ...] = ()
    hmm: str | None = None
    strength: float | None = None
    guides: tuple[str, ...] = ()
    class_lm: str | None = None

    @classmethod
    def of(cls, **options: Any) -> Conditions:
        """Conditions from options as typer gives them: lists, or None where an option was not given."""
        read: dict[str, Any] = {name: tuple(value or ()) if name in _MANY else value for name, value in options.items()}
        return cls(**read)

    @property
    def hard(self) -> bool:
        """Whether each text satisfies the conditions or does not, so that they restrict the model and make nothing likelier beside."""
        return not self.attributes and not self.guides

    def potential(
        self,
        loaded: Loaded,
        max_new_tokens: int,
        grammar: Potential[Any] | None = None,
        *,
        exact: bool = False,
    ) -> Potential[Any] | None:
        """The potential of all conditions; None if there is none.

        Args:
            loaded: the model.
            max_new_tokens: the budget.
            grammar: one more factor.
            exact: whether words take the exact lookahead, whose normalisers weigh a sample against the model restricted to the
                conditions, up to a constant; else the form that costs single samples least.

        Raises:
            InputError: attributes or a strength without an HMM, a range that is none, or a class that is none.
            AutomatonError: a condition cannot be built.
        """
        automaton, hmm = self._read(loaded)
        own = self._foreseen(loaded, max_new_tokens, automaton, hmm, exact=exact)
        return _product(grammar, _joint(grammar, automaton), guidance(loaded, self.guides, self.class_lm), own)

    def _foreseen(
        self, loaded: Loaded, max_new_tokens: int, automaton: TokenDFA | None, hmm: HMM | None, *, exact: bool
    ) -> Potential[Any] | None:
        """The potential of all conditions that need no class LM."""
        if hmm is None:
            return None if automaton is None else AutomatonPotential(automaton)
        attributes = self._attributes(loaded.vocabulary)
        form: dict[str, Any] = {} if automaton is None or exact else _SAMPLED
        lookahead = Lookahead(hmm, automaton, attributes, max_new_tokens=max_new_tokens, limit="open", **form)
        return lookahead ** (1.0 if self.strength is None else self.strength)

    def asked(self, factor: Potential[Any]) -> str:
        """What was asked for that a factor of the potential brings about, as options are written; "" if these conditions made it not."""
        if isinstance(factor, GeDi):
            return f"--guide {shlex.quote(factor.target)}={factor.strength:g}"
        if isinstance(factor, ForbiddenTokens):  # the codes of the class LM
            return " ".join(f"--guide {shlex.quote(guide)}" for guide in self.guides)
        if not isinstance(factor, (AutomatonPotential, JointPotential, Lookahead)):
            return ""
        several = {"contains": self.contains, "avoid": self.avoid}
        if not isinstance(factor, JointPotential):
            several["attribute"] = self.attributes
        pairs = [(name, value) for name, values in several.items() for value in values]
        pairs += [] if self.words is None else [("words", self.words)]
        return " ".join(f"--{name} {shlex.quote(value)}" for name, value in pairs)

    def target(
        self, loaded: Loaded, max_new_tokens: int, grammar: Potential[Any] | None
    ) -> tuple[Potential[Any] | None, Potential[Any] | None]:
        """What samplers aim at, and what may foresee it: ψ and a twist for sequential Monte Carlo; None where there is none.

        Words and counts are a hard ψ, with the lookahead that costs least as its twist. With attributes ψ is the exact lookahead
        itself, whose value at the end of a text is what was asked for.

        Args:
            loaded: the model.
            max_new_tokens: the budget.
            grammar: one more factor of ψ.

        Raises:
            InputError: as `potential`.
            AutomatonError: as `potential`.
        """
        automaton, hmm = self._read(loaded)
        own, twist = self._own_target(loaded, max_new_tokens, automaton, hmm)
        return _product(grammar, _joint(grammar, automaton), own, guidance(loaded, self.guides, self.class_lm)), twist

    def _own_target(
        self, loaded: Loaded, max_new_tokens: int, automaton: TokenDFA | None, hmm: HMM | None
    ) -> tuple[Potential[Any] | None, Potential[Any] | None]:
        """The target without grammar and guides."""
        if self.attributes:
            return self._foreseen(loaded, max_new_tokens, automaton, hmm, exact=True), None
        if automaton is None:
            return None, None
        if hmm is None:
            return AutomatonPotential(automaton), None
        twist = Lookahead(hmm, automaton, max_new_tokens=max_new_tokens, limit="open", detail=0)
        return AutomatonPotential(automaton), twist ** (1.0 if self.strength is None else self.strength)

    def _read(self, loaded: Loaded) -> tuple[TokenDFA | None, HMM | None]:
        """Automaton and HMM, the latter only where there is something to look for; what does not fit together is refused."""
        automaton = self._automaton(loaded.vocabulary)
        if automaton is None and not self.attributes:
            if self.hmm is not None or self.strength is not None:
                raise InputError(
                    "--hmm and --strength are of a lookahead, and there is nothing to look for; add --contains, --avoid, --words or --attribute"
                )
            return None, None
        hmm = self._hmm(loaded)
        if hmm is None and (self.attributes or self.strength is not None):
            raise InputError(
                f"--attribute and --strength need a lookahead, and no HMM of the model {loaded.name!r} is known; name one by --hmm, "
                "distilled with ctrldecode distill"
            )
        return automaton, hmm

    def _automaton(self, vocabulary: Vocabulary) -> TokenDFA | None:
        parts: list[TokenDFA] = []
        if self.contains:
            parts.append(automata.contains_all(vocabulary, [phrase.split("|") for phrase in self.contains]))
        if self.avoid:
            parts.append(automata.forbids(vocabulary, list(self.avoid)))
        if self.words is not None:
            parts.append(automata.word_count(vocabulary, *_range(self.words)))
        return reduce(and_, parts) if parts else None

    def _attributes(self, vocabulary: Vocabulary) -> AttributeWeights | None:
        if not self.attributes:
            return None
        from ctrldecode.hmm.attributes import AttributeWeights

        return reduce(mul, [AttributeWeights.load(attribute_path(name), vocabulary) for name in self.attributes])

    def _hmm(self, loaded: Loaded) -> HMM | None:
        if self.hmm == "none":
            return None
        name = self.hmm or next((name for name in hmm_names() if name.rpartition("-")[0] == loaded.name), None)
        return None if name is None else HMM.load(hmm_path(name), loaded.vocabulary).to(loaded.model.device)


def _product(*potentials: Potential[Any] | None) -> Potential[Any] | None:
    """The product of those that there are; None if there are none."""
    there = [potential for potential in potentials if potential is not None]
    return reduce(mul, there) if there else None


def _joint(grammar: Potential[Any] | None, automaton: TokenDFA | None) -> JointPotential | None:
    """What keeps grammar and words from shutting each other out; None unless there are both."""
    return grammar.within(automaton) if isinstance(grammar, GrammarPotential) and automaton is not None else None


def _range(text: str) -> tuple[int, int | None]:
    """Lowest and highest number of a range; None is no upper bound."""
    low, colon, high = text.partition(":")
    numbers = [int(part) if part.strip().isdecimal() else None for part in (low, high if colon else low)]
    written = [part for part in (low, high) if part]
    if not written or not all(part.strip().isdecimal() for part in written):
        raise InputError(f"--words wants a number such as 25, or a range such as 20:30, 20: or :30; got {text!r}")
    return numbers[0] or 0, numbers[1]
