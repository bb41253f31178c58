"""The kinds of tasks that make examples of any length; others have tests of their own."""

from miras.tasks import Task

KINDS = [name for name in Task.registry.names() if isinstance(Task.registry.build(name), Task)]
