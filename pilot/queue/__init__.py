"""The embedded task queue: a SQLite file, shared by the processes of one machine."""

from pilot.queue.records import (
    Change,
    HistoryLine,
    JobDetail,
    JobRow,
    KillAnswer,
    ProcessLine,
    QueuePolicy,
    TraceLine,
)
from pilot.queue.store import QueueStore
from pilot.queue.task_queue import SqliteTaskQueue

__all__ = [
    "Change",
    "HistoryLine",
    "JobDetail",
    "JobRow",
    "KillAnswer",
    "ProcessLine",
    "QueuePolicy",
    "QueueStore",
    "SqliteTaskQueue",
    "TraceLine",
]
