"""What transformers' Trainer needs and ctrldecode alone does not; the only module that asks for it."""

from __future__ import annotations

from importlib.util import find_spec

from ctrldecode.errors import ModelError

__all__ = ["require_accelerate"]


def require_accelerate() -> None:
    """Ask early, so that nothing is missing once the data are read.

    Raises:
        ModelError: accelerate is not installed.
    """
    if find_spec("accelerate") is None:
        raise ModelError(
            "training needs accelerate, which is not installed; install it with: pip install 'ctrldecode[train]'"
        )
