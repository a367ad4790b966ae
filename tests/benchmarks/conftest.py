"""The option `--write-docs` of the benchmarks, and the report that they fill."""

from __future__ import annotations

import pytest

from tests.benchmarks.report import PAGE, Report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-docs", action="store_true", help="write tables and plots into docs/")


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    writes = request.config.getoption("--write-docs", default=False)
    return Report(PAGE if writes else None)
