"""Processes that have several CPU devices."""

import os


def environment(count: int) -> dict[str, str]:
    """The environment of a process with `count` devices; it compiles as quickly as the tests do."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
