"""Constrained and controlled decoding of language models: one function ψ over prefixes, many ways to get it.

Names are imported when they are first used, so that `import ctrldecode` and `ctrldecode --help` start at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ctrldecode._resources import attribute_path, grammar_path, hmm_path, model_path
from ctrldecode.errors import (
    AutomatonError,
    AutomatonLimitError,
    BudgetError,
    ConflictError,
    CtrldecodeError,
    DeadEnd,
    DistillationError,
    GrammarError,
    GrammarLimitError,
    GrammarWarning,
    InputError,
    ModelError,
    PotentialError,
    TableLimitError,
    VocabularyError,
)

if TYPE_CHECKING:
    from ctrldecode import assistants, automata, diagnostics, explain, guidance, samplers
    from ctrldecode.automata.dfa import TokenDFA
    from ctrldecode.automata.potential import AutomatonPotential
    from ctrldecode.core import laws
    from ctrldecode.core.potential import Potential, Product, Support, cat, per_row, take
    from ctrldecode.core.vocabulary import Vocabulary
    from ctrldecode.grammar.grammar import Grammar
    from ctrldecode.grammar.joint import JointPotential
    from ctrldecode.guidance import Fudge, GeDi, Prompted, cfg, contrastive, dexperts, fudge
    from ctrldecode.hmm.attributes import AttributeWeights
    from ctrldecode.hmm.language_model import HMMLanguageModel
    from ctrldecode.hmm.lookahead import Lookahead
    from ctrldecode.hmm.model import HMM
    from ctrldecode.lm import CausalLM
    from ctrldecode.processor import ControlProcessor
    from ctrldecode.samplers import Future, Trie

__all__ = [
    "HMM",
    "AttributeWeights",
    "AutomatonError",
    "AutomatonLimitError",
    "AutomatonPotential",
    "BudgetError",
    "CausalLM",
    "ConflictError",
    "ControlProcessor",
    "CtrldecodeError",
    "DeadEnd",
    "DistillationError",
    "Fudge",
    "Future",
    "GeDi",
    "Grammar",
    "GrammarError",
    "GrammarLimitError",
    "GrammarWarning",
    "HMMLanguageModel",
    "InputError",
    "JointPotential",
    "Lookahead",
    "ModelError",
    "Potential",
    "PotentialError",
    "Product",
    "Prompted",
    "Support",
    "TableLimitError",
    "TokenDFA",
    "Trie",
    "Vocabulary",
    "VocabularyError",
    "__version__",
    "assistants",
    "attribute_path",
    "automata",
    "cat",
    "cfg",
    "contrastive",
    "dexperts",
    "diagnostics",
    "explain",
    "fudge",
    "grammar_path",
    "guidance",
    "hmm_path",
    "laws",
    "model_path",
    "per_row",
    "samplers",
    "take",
]

__version__ = "0.1.0"

# Public name -> the module that defines it, or that it is. Each of these modules imports torch, which takes seconds.
_HOMES = {
    "HMM": "ctrldecode.hmm.model",
    "AttributeWeights": "ctrldecode.hmm.attributes",
    "AutomatonPotential": "ctrldecode.automata.potential",
    "CausalLM": "ctrldecode.lm",
    "ControlProcessor": "ctrldecode.processor",
    "Fudge": "ctrldecode.guidance",
    "Future": "ctrldecode.samplers",
    "GeDi": "ctrldecode.guidance",
    "Grammar": "ctrldecode.grammar.grammar",
    "HMMLanguageModel": "ctrldecode.hmm.language_model",
    "JointPotential": "ctrldecode.grammar.joint",
    "Lookahead": "ctrldecode.hmm.lookahead",
    "Potential": "ctrldecode.core.potential",
    "Product": "ctrldecode.core.potential",
    "Prompted": "ctrldecode.guidance",
    "Support": "ctrldecode.core.potential",
    "TokenDFA": "ctrldecode.automata.dfa",
    "Trie": "ctrldecode.samplers",
    "Vocabulary": "ctrldecode.core.vocabulary",
    "assistants": "ctrldecode.assistants",
    "automata": "ctrldecode.automata",
    "cat": "ctrldecode.core.potential",
    "cfg": "ctrldecode.guidance",
    "contrastive": "ctrldecode.guidance",
    "dexperts": "ctrldecode.guidance",
    "diagnostics": "ctrldecode.diagnostics",
    "explain": "ctrldecode.explain",
    "fudge": "ctrldecode.guidance",
    "guidance": "ctrldecode.guidance",
    "laws": "ctrldecode.core.laws",
    "per_row": "ctrldecode.core.potential",
    "samplers": "ctrldecode.samplers",
    "take": "ctrldecode.core.potential",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES[name])
    value = (
        home
        if name in {"assistants", "automata", "diagnostics", "explain", "guidance", "laws", "samplers"}
        else getattr(home, name)
    )
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
