"""Tasks: recall in rows of any length with known answers, and classes of sequences."""

from miras.data.config import TaskConfig
from miras.data.task import Documents, Example, Material, Opened, Task, register, seeded
from miras.tasks.babilong import BABILong
from miras.tasks.classify import Classify
from miras.tasks.mqar import MQAR
from miras.tasks.niah import NIAH
from miras.tasks.selective_copy import SelectiveCopy

__all__ = [
    "MQAR",
    "NIAH",
    "BABILong",
    "Classify",
    "Documents",
    "Example",
    "Material",
    "Opened",
    "SelectiveCopy",
    "Task",
    "TaskConfig",
    "register",
    "seeded",
]
