"""A way to run the command line in this process, as the tests of the commands have."""

from tests.cli.conftest import run

__all__ = ["run"]
