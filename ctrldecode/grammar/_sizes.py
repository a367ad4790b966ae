"""How large a grammar gets when lark writes out its templates, terminals and optional parts; found out before lark does it.

A few lines can double what they say many times over, so that lark would take hours or all of the memory. This module counts; it
does not transform.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from lark import Tree

from ctrldecode.errors import GrammarLimitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["check"]

# lark takes about 0.2 ms for an alternative, so that one rule takes ten seconds at most; rules that people write have some hundreds.
_ALTERNATIVES = 50_000
# Rules that templates make, and characters in the name of one: lark names it by its arguments, written out.
_TEMPLATES, _NAME = 10_000, 10_000
# Nodes of a terminal's tree that are there again since other terminals are used in it more than once; lark takes 0.2 ms for each.
_PARTS = 20_000
_IN_ONE_RULE = 50  # from so many repetitions on, lark makes rules of their own


def check(definitions: dict[str, Any]) -> None:
    """Refuse a grammar that would get too large.

    Args:
        definitions: lark's, of rules, templates and terminals, by name.

    Raises:
        GrammarLimitError: one of the limits above would be passed.
    """
    known = {str(name): found for name, found in dict.items(definitions) if found.tree is not None}
    _check_terminals({name: found.tree for name, found in known.items() if found.is_term})
    rules = [(name, found.params, found.tree) for name, found in known.items() if not found.is_term]
    _check_templates({name: (parameters, tree) for name, parameters, tree in rules})
    for name, _, tree in rules:
        for part in _own_rules(tree):
            if _bound(part) > _ALTERNATIVES and not _is_small(part):
                raise GrammarLimitError(
                    f"rule {name} has more than {_ALTERNATIVES:,} alternatives when optional and repeated parts are written out; give its "
                    "inner groups names, as rules of their own"
                )


def _check_terminals(trees: Mapping[str, Any]) -> None:
    """Count the nodes of each terminal when those that it uses are written out, as often as they are used."""
    used = {name: [each for each in _names(tree) if each in trees] for name, tree in trees.items()}
    own = {name: sum(1 for _ in tree.iter_subtrees()) for name, tree in trees.items()}
    whole: dict[str, int] = {}
    try:
        for name in TopologicalSorter(used).static_order():
            whole[name] = own[name] + sum(whole[each] for each in used[name])
            if whole[name] - sum(own.values()) > _PARTS:
                raise GrammarLimitError(
                    f"terminal {name} uses other terminals so often that it has more than {_PARTS:,} repeated parts when they are written "
                    "out; repeat a terminal by NAME~n, or make it a rule"
                )
    except CycleError:
        return  # a terminal that uses itself, which lark refuses


def _names(tree: Any) -> Iterator[str]:
    """The symbols that a definition uses, as often as it does."""
    for value in tree.find_data("value"):
        for symbol in value.children:
            yield str(getattr(symbol, "name", symbol))


def _check_templates(rules: Mapping[str, tuple[Sequence[str], Any]]) -> None:
    """Follow the uses of templates as lark does, by the names that it gives them."""
    made: set[str] = set()
    waiting: list[tuple[Any, dict[str, str]]] = [(tree, {}) for parameters, tree in rules.values() if not parameters]
    while waiting:
        tree, named = waiting.pop()
        for use in _uses(tree):
            name, *arguments = use.children
            called = [_called(argument, named) for argument in arguments]
            whole = sum(map(len, called))
            if whole > _NAME or len(made) > _TEMPLATES:
                what = (
                    f"more than {_TEMPLATES:,} rules"
                    if whole <= _NAME
                    else f"a rule whose arguments take more than {_NAME:,} characters when they are written out"
                )
                raise GrammarLimitError(
                    f"template {name.name} makes {what}, which grow with each use in another; give it rules as arguments, and no "
                    "templates that use templates"
                )
            full = f"{name.name}{{{','.join(called)}}}"
            if full not in made and name.name in rules:
                made.add(full)
                parameters, inner = rules[name.name]
                waiting.append((inner, dict(zip(parameters, called, strict=False))))


def _uses(tree: Any) -> Iterator[Any]:
    """The places where a template is used, inner ones too."""
    return tree.find_data("template_usage")


def _called(argument: Any, named: Mapping[str, str]) -> str:
    """The name of an argument, as far as it is not too long."""
    if isinstance(argument, Tree):
        if argument.data == "template_usage":
            name, *inner = argument.children
            parts = [_called(each, named)[: _NAME + 1] for each in inner]
            return f"{name.name}{{{','.join(parts)}}}"  # pyright: ignore[reportAttributeAccessIssue]
        return _called(argument.children[0], named) if argument.children else ""
    name = str(getattr(argument, "name", argument))
    return named.get(name, name)


def _own_rules(tree: Any) -> Iterator[Any]:
    """The tree, and what lark makes rules of their own: what is repeated without a bound."""
    yield tree
    for repeat in tree.find_data("expr"):
        if str(repeat.children[1]) in "*+":
            yield repeat.children[0]


def _repeats(tree: Any) -> range:
    """How often what stands before ~ is written in one rule."""
    low, high = int(tree.children[2]), int(tree.children[-1])
    return range(low, high + 1) if high < _IN_ONE_RULE else range(5, 6)  # lark writes it up to five times in a rule


def _bound(tree: Any) -> int:  # noqa: PLR0911  one for each kind of node
    """The number of alternatives of a part, equal ones counted as often as they come up."""
    if not isinstance(tree, Tree):
        return 1
    kind, children = str(tree.data), tree.children
    if kind == "expansions":
        return sum(map(_bound, children))
    if kind == "expansion":
        return prod(map(_bound, children))
    if kind == "alias":
        return _bound(children[0])
    if kind == "maybe":
        return _bound(children[0]) + 1
    if kind == "expr":
        sign = str(children[1])
        if sign == "~":
            return sum(_bound(children[0]) ** count for count in _repeats(tree))
        return {"?": _bound(children[0]) + 1, "*": 2}.get(sign, 1)
    return 1


class _TooManyError(Exception):
    """More alternatives than allowed were made on the way."""


def _is_small(tree: Any) -> bool:
    """Whether the alternatives are few if equal ones are joined as lark joins them, part by part."""
    try:
        _alternatives(tree)
    except _TooManyError:
        return False
    return True


def _alternatives(tree: Any) -> set[tuple[Any, ...]]:  # noqa: PLR0911  one for each kind of node
    """The alternatives of a part as sequences of symbols."""
    if not isinstance(tree, Tree):
        return {(tree,)}
    kind, children = str(tree.data), tree.children
    if kind == "expansions":
        return set().union(*map(_alternatives, children))
    if kind == "expansion":
        return _joined([_alternatives(child) for child in children])
    if kind == "alias":
        return _alternatives(children[0])
    if kind == "maybe":
        return _alternatives(children[0]) | {()}
    if kind == "expr":
        sign = str(children[1])
        if sign == "~":
            inner = _alternatives(children[0])
            return set().union(*(_joined([inner] * count) for count in _repeats(tree)))
        if sign == "?":
            return _alternatives(children[0]) | {()}
        return {(tree,), ()} if sign == "*" else {(tree,)}
    return {(tree,)}


def _joined(parts: list[set[tuple[Any, ...]]]) -> set[tuple[Any, ...]]:
    if prod(map(len, parts)) > _ALTERNATIVES:
        raise _TooManyError
    return {tuple(symbol for piece in pieces for symbol in piece) for pieces in product(*parts)}
