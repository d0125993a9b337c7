"""The meter: wall time of the payload, the newest usage, and when it is to be reported."""

from __future__ import annotations

from actors.meter import Meter
from transport.messages import Usage


def test_wall_time_is_the_payloads() -> None:
    """It runs from start to stop, and stands before and after."""
    meter = Meter(report_s=10.0)
    assert meter.usage(5.0).wall_s == 0.0

    meter.start(100.0)
    assert meter.usage(107.0).wall_s == 7.0

    meter.stop(110.0)
    meter.stop(200.0)
    assert meter.usage(300.0).wall_s == 10.0


def test_the_newest_usage_is_kept() -> None:
    """With the wall time added, which no sample knows."""
    meter = Meter(report_s=10.0)
    meter.start(0.0)
    meter.take(Usage(cpu_s=1.0), 100.0)
    meter.take(Usage(cpu_s=2.0), 101.0)

    assert meter.usage(102.0) == Usage(cpu_s=2.0, wall_s=102.0)


def test_reports_are_due_now_and_then() -> None:
    """The first sample, and one after each pause."""
    meter = Meter(report_s=10.0)
    due = [now for now in range(100, 125) if meter.take(Usage(), float(now))]

    assert due == [100, 110, 120]
