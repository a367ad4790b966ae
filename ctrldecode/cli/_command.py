"""A command that takes an option once, unless it is one that collects values."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

__all__ = ["OnceCommand"]


class OnceCommand(TyperCommand):
    """Of an option that was given twice, typer takes the last value and says nothing; here it is refused."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer's own class of contexts is private
        """Read the arguments.

        Raises:
            BadParameter: an option that takes one value is given several.
        """
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option in {id(param): param for param in order}.values():
            count = sum(param is option for param in order)
            if isinstance(option, TyperOption) and not (option.is_flag or option.multiple) and count > 1:
                raise typer.BadParameter(f"it is given {count} times, and takes one value; give it once.", ctx, option)
        return super().parse_args(ctx, args)
