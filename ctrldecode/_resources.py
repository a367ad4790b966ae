"""Finds what is shipped beside the code: grammars, models, HMMs. Knows paths and names, and reads no file.

A wheel carries grammars and HMMs inside the package, in `_data/`; a checkout, or an editable install of one, has them in
folders of their own at the top, where they are easy to find and edit.
"""

from __future__ import annotations

from pathlib import Path

from ctrldecode.errors import InputError

__all__ = [
    "attribute_path",
    "class_lm_of",
    "grammar_names",
    "grammar_path",
    "hmm_names",
    "hmm_path",
    "model_names",
    "model_path",
]

_PACKAGE = Path(__file__).resolve().parent
_MODELS = ("tinytales", "tinytales-moods")
_CLASS_LMS = {"tinytales": "tinytales-moods"}


def grammar_names() -> list[str]:
    """Names of the shipped grammars, sorted.

    Example:
        >>> "json" in grammar_names()
        True
    """
    return sorted(path.stem for path in _folder("grammars").glob("*.lark"))


def grammar_path(name: str) -> Path:
    """The file of a shipped grammar, or the file that `name` itself points to.

    Args:
        name: a name of `grammar_names()`, or a path to a grammar of the user's own. A file of that name in the working
            directory does not hide a shipped grammar; write `./json` for such a file.

    Returns:
        A path to an existing file.

    Raises:
        InputError: it is neither.

    Example:
        >>> grammar_path("json").name
        'json.lark'
    """
    if name in grammar_names():
        return _folder("grammars") / f"{name}.lark"
    path = Path(name).expanduser()
    if path.is_file():
        return path
    raise InputError(
        f"there is no grammar {name!r}: wanted the path of a lark grammar, or one of {', '.join(grammar_names())} "
        "(ctrldecode grammar list)"
    )


def hmm_names() -> list[str]:
    """Names of the shipped HMMs, sorted."""
    return sorted(path.stem for path in _folder("hmm").glob("*.safetensors"))


def hmm_path(name: str) -> Path:
    """The file of a shipped HMM, or the file that `name` itself points to.

    Args:
        name: a name of `hmm_names()`, or a path. A file of that name in the working directory does not hide a shipped HMM.

    Returns:
        A path to an existing file.

    Raises:
        InputError: it is neither.
    """
    return _tensors(name, _folder("hmm"), "HMM", "distill")


def attribute_path(name: str) -> Path:
    """The file of a shipped attribute, or the file that `name` itself points to; as `hmm_path`.

    Example:
        >>> attribute_path("happy").name
        'happy.safetensors'
    """
    return _tensors(name, _folder("hmm") / "attributes", "attribute", "fit-attribute")


def _tensors(name: str, folder: Path, kind: str, command: str) -> Path:
    shipped = {path.stem: path for path in folder.glob("*.safetensors")}
    path = shipped.get(name, Path(name).expanduser())
    if not path.is_file():
        raise InputError(
            f"there is no {kind} {name!r}: wanted the path of a file that ctrldecode {command} wrote, or one of {', '.join(sorted(shipped))}"
        )
    return path


def model_names() -> list[str]:
    """Names of the models that come with the package."""
    return list(_MODELS)


def class_lm_of(model: str) -> str | None:
    """The name of the class LM that comes with the package for a model that does; None if there is none.

    Example:
        >>> class_lm_of("tinytales"), class_lm_of("gpt2")
        ('tinytales-moods', None)
    """
    return _CLASS_LMS.get(model)


def model_path(name: str = "tinytales") -> Path:
    """The folder of a model that comes with the package.

    Raises:
        InputError: there is none of that name, or its files are not where they should be.
    """
    path = _PACKAGE / name
    if name not in _MODELS:
        raise InputError(f"there is no embedded model {name!r}; wanted one of {', '.join(_MODELS)}")
    if not (path / "config.json").is_file():
        raise InputError(f"the embedded model {name!r} is missing from {path}; install ctrldecode again")
    return path


def _folder(name: str) -> Path:
    """The folder of shipped data: of the wheel if this is one, else of the checkout."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
