"""What holds for all tests: engines that must be there in CI, and nobody's own settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

REQUIRE_ENGINES = "PILOT_REQUIRE_ENGINES"
"""Set to 1 where every engine is to be there (.ci/run): a test that skips for one fails."""

# How long an example takes says more about the machine than about the code.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


def pytest_configure() -> None:
    """Forget the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("PILOT_")]:
        if name != REQUIRE_ENGINES:
            del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that lacks an engine where engines are required; who runs it is no engine."""
    report = yield
    is_real = any(item.iter_markers("real")) or any(item.iter_markers("apptainer"))
    if report.skipped and is_real and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if os.environ.get(REQUIRE_ENGINES) == "1" and "root" not in reason.lower():
            report.outcome = "failed"
            report.longrepr = f"{REQUIRE_ENGINES}=1, and this test was not run: {reason}"
    return report


@pytest.fixture(scope="session")
def apptainer() -> Path:
    """Give the path of Apptainer, or skip."""
    found = shutil.which("apptainer")
    if found is None:
        pytest.skip("Apptainer is not on this machine; tests/engines/install-apptainer installs it")
    return Path(found)
