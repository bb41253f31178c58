"""Tasks: recall in rows with known answers, classes of sequences, and time series."""

from miras.data.config import TaskConfig
from miras.data.task import Documents, Example, Material, Opened, Task, register, seeded
from miras.tasks.babilong import BABILong
from miras.tasks.classify import Classify
from miras.tasks.common_words import CommonWords
from miras.tasks.forecasting.forecast import Forecast
from miras.tasks.frequent_words import FrequentWords
from miras.tasks.mqar import MQAR
from miras.tasks.multi_niah import MultiKey, MultiQuery, MultiValue
from miras.tasks.niah import NIAH
from miras.tasks.selective_copy import SelectiveCopy
from miras.tasks.variable_tracking import VariableTracking

__all__ = [
    "MQAR",
    "NIAH",
    "BABILong",
    "Classify",
    "CommonWords",
    "Documents",
    "Example",
    "Forecast",
    "FrequentWords",
    "Material",
    "MultiKey",
    "MultiQuery",
    "MultiValue",
    "Opened",
    "SelectiveCopy",
    "Task",
    "TaskConfig",
    "VariableTracking",
    "register",
    "seeded",
]
