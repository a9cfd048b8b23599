"""Choices and defaults that both the settings and the modules they are for have to know.

Why here: the command line reads the settings on each start, and should not have to load the server for a few words.
"""

from typing import Final

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
LOG_REQUESTS: Final = ("all", "errors", "off")
MAX_CONNECTIONS: Final = 4096
TRACE_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The standard variables that name a collector of traces."""
