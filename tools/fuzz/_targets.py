"""All targets by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.fuzz._class_lm import ClassLm
from tools.fuzz._cli import CommandLine
from tools.fuzz._files import Files
from tools.fuzz._grammars import Grammars
from tools.fuzz._regexes import Regexes

if TYPE_CHECKING:
    from tools.fuzz._runner import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target for target in (Grammars(), Regexes(), Files(), ClassLm(), CommandLine())
}
