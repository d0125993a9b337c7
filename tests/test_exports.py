"""The public names: a change here is a change for somebody else."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

EXPORTS = {
    "transport": """
        AgentMessage ByteStream CloseCause Closed Delivery Detached FrameRefused InternalError
        Link LinkOptions Message MessageConfirmed MessageReceived MessageUnsupported Opened
        OperatorError PeerError PilotError Record Refusal Role Secret Session SessionEvent
        SessionState SessionStatistics UserError WrapperMessage stdio_link
    """,
    "actors": """
        Actor ActorCrashed ActorSystem Address Call CancelWork ChildEnded ChildRestarted ChildSpec
        Effect Effects Ending Intensity MailboxStatistics NoAnswer Recipient Reply Restart Run
        Schedule SpawnChild StopChild StopSelf SystemStatistics Tell Unschedule WorkFailed handles
    """,
    "pilot.bundle": "WRAPPER_VARIABLES Bundle TakenBundle build_bundle take_bundle",
    "pilot.embedding": """
        FINAL ActorCrashed Answer AnyReport Command ContainerPolicy DrainNode FinalReport Heartbeat
        HeldJob InputFile JdlError JobDescription JobStatus KillJob KillReason LoseJob Match Node
        OperatorError OutputSpec PilotError ProcessReport SavedFile Settings Slot StatusReport
        TaskQueue TraceReport Usage UsageReport UserError local_node parse_jdl
    """,
    "pilot.jdl": "KNOWN_KEYS JdlError parse_jdl unknown_keys_note",
    "pilot.queue": """
        Change HistoryLine JobDetail JobRow KillAnswer ProcessLine QueuePolicy QueueStore
        SqliteTaskQueue TraceLine
    """,
    "pilot.survey": """
        FIGURES NODE_CLASSES PROBE_SCHEMA BrokenReport Classes Found Survey Tally Trouble
        ValueCounts percent survey_csv survey_json
    """,
    "pilot.staging": """
        LocalStager write_input_data_list
    """,
}


@pytest.mark.parametrize("package", EXPORTS)
def test_exported_names_are_pinned(package: str) -> None:
    """Names come and go on purpose: this list is changed in the same commit."""
    exported = importlib.import_module(package).__all__

    assert set(exported) == set(EXPORTS[package].split())
    assert len(exported) == len(set(exported))


def test_every_package_with_exports_is_pinned() -> None:
    """A new package's names are added here."""
    packages = [
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("transport", "actors", "pilot")
        for path in (ROOT / top).rglob("__init__.py")
        if "__all__" in path.read_text()
    ]

    assert sorted([*packages, "pilot.embedding"]) == sorted(EXPORTS)


@pytest.mark.parametrize("package", EXPORTS)
def test_exported_names_are_there(package: str) -> None:
    """Each can be imported."""
    module = importlib.import_module(package)

    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert missing == []
