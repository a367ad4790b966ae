"""Messages of the package in the words of the command line: options in place of the arguments of Python, and no advice that only Python can follow.

Patterns name a whole phrase, so that a path, a text or a grammar of the user that stands in a message keeps its words.
"""

from __future__ import annotations

import re

__all__ = ["in_options"]

# Settings of a class LM, with their options.
_SETTINGS = {
    **{name: name for name in ("mix", "prefixes", "epochs", "steps", "holdout", "balance", "calibrate", "seed")},
    "batch": "batch-size",
    "learning_rate": "learning-rate",
    "max_length": "max-length",
}
# What the package says, as a regular expression, and what the command line says.
_PHRASES = [
    # the budget
    (r"Loosen the constraint, raise max_new_tokens, or pass on_dead_end='stop'", "Loosen the constraint, or raise --max-new-tokens"),
    (r"\b(raise|lower) max_new_tokens\b", r"\1 --max-new-tokens"),
    (r"(\(|, )max_new_tokens (?=\d+ where \d+ is wanted)", r"\1--max-new-tokens "),
    (r", and max_table_bytes allows ([\d,]+);", r", and \1 are the most;"),
    (r", a smaller max_new_tokens or HMM, or a larger max_table_bytes", ", or a smaller --max-new-tokens or HMM"),
    (r", narrow the potential, or raise limit; log_z_bounds works for any size", ", narrow the conditions, or leave --exact out"),
    # guides
    (r"\btarget must be one of the classes ", "--guide must name one of the classes "),
    (r"^strength must be a positive number, at most ", "the strength of --guide must be a positive number, at most "),
    (r"; to lean away from a class, make another one the target$", "; to lean away from a class, guide towards another one"),
    (r"; give codes such as \{'happy': '<\|happy\|>', 'sad': '<\|sad\|>'\}, or a model of ", "; name by --class-lm a model of "),
    # automata
    (r"^a count from low=(\d+) to high=(\d+) holds no number; .*$", r"--words \1:\2 holds no number; write the lower one first"),
    (r"needs more than limit=(\d+) ", r"needs more than \1 "),
    (r", ask for fewer alternatives, or pass a larger limit$", ", or ask for fewer alternatives"),
    (r"; use a simpler condition, or pass a larger limit \(4 bytes an entry\)$", "; use a simpler condition"),
    (r", or call intersection, union or concatenation with a larger limit \(4 bytes an entry\)$", ""),
    # grammars
    (r" \(limit max_search\); raise the limit, or simplify ", "; simplify "),
    (r" \(limit max_lexer_states\); ", "; "),
    (r" \(limit max_places\); raise the limit, or ", "; "),
    (r" repeat a bounded number of times, or raise the limit$", " repeat a bounded number of times"),
    (r"\b(pass|use) parser=\"earley\"", "give --parser earley"),
    (r" \(parser=\"earley\" follows both\)", " (--parser earley follows both)"),
    (r": pass one as start\b", ": call one of them start"),
    # vocabularies
    (r"^size=(\d+) is smaller than the (\d+) ids of the tokenizer; .*, or resize", r"the model's head scores \1 ids, and the tokenizer has \2; resize"),
    (r"^eos_token_ids (\S.*) must lie in 0 to (\d+); pass size=model\.config\.vocab_size if it is larger$",
     r"the ends of sequence \1 must lie in 0 to \2, the ids that the model's head scores; correct eos_token_id in its generation_config.json"),
    (r", or build Vocabulary\(tokens=\.\.\., eos_token_ids=\.\.\.\) from the bytes of each id yourself$", ""),
    (r"\beos_token_ids must be (at least one id in 0 to \d+, got \S.*); pass vocabulary\.eos_token_ids, and an emission as wide as the model's head",
     r"eos_token_id in its config.json must be \1"),
    (r", or write a Potential that carries this model's own state$", ""),
    # fit-attribute
    (r"^penalty must be a finite number above 0, or None, got (\S+); None chooses one ", r"--penalty must be a finite number above 0, got \1; without it one is chosen "),
    (r"; raise the penalty above ", "; raise --penalty above "),
    # train class-lm; a distillation has settings of such names in files only, and says otherwise what they must be
    (r"^codes must (?=be two or more|differ in)", "--codes must "),
    *((rf"^{name} must (?=lie |be a finite number above 0|be [\d,]+ at most)", f"--{option} must ") for name, option in _SETTINGS.items()),
    *((rf"(: |; ){name} is (?=[^;]* there, )", rf"\1--{option} is ") for name, option in _SETTINGS.items()),
]  # fmt: skip
_COMPILED = [(re.compile(said), wanted) for said, wanted in _PHRASES]


def in_options(message: str) -> str:
    """A message of the package as the command line says it.

    Example:
        >>> in_options("the shortest text needs 9 tokens, but only 4 are allowed; raise max_new_tokens")
        'the shortest text needs 9 tokens, but only 4 are allowed; raise --max-new-tokens'
    """
    for said, wanted in _COMPILED:
        message = said.sub(wanted, message)
    return message
