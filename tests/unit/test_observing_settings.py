"""How the environment says what is to be observed: each setting that makes no sense is refused in one line."""

import pytest
from click.testing import CliRunner
from taskade_server.__main__ import main
from taskade_server.config import Observing, observing


def test_without_settings():
    assert observing({}, terminal=False) == Observing()
    assert observing({}, terminal=True) == Observing(log_format="text")
    assert observing({"TASKADE_LOG_FORMAT": "", "TASKADE_METRICS_TOKEN": ""}, terminal=False) == Observing()


def test_with_settings():
    environment = {
        "TASKADE_LOG_FORMAT": "JSON", "TASKADE_LOG_LEVEL": "Warning", "TASKADE_LOG_REQUESTS": "off",
        "TASKADE_METRICS_TOKEN": "0123456789abcdef", "TASKADE_OTLP_ENDPOINT": "https://collector.example.com",
    }  # fmt: skip
    assert observing(environment, terminal=True) == Observing(
        "json", "warning", "off", "0123456789abcdef", True, "https://collector.example.com"
    )


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_the_standard_variables_name_a_collector_too(name):
    assert observing({name: "http://127.0.0.1:4318"}, terminal=False) == Observing(traces=True)
    assert observing({name: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, terminal=False) == Observing()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TASKADE_LOG_FORMAT", "xml", "text, json"),
        ("TASKADE_LOG_LEVEL", "loud", "debug, info, warning, error, critical"),
        ("TASKADE_LOG_REQUESTS", "some", "all, errors, off"),
        ("TASKADE_METRICS_TOKEN", "short", "16 characters"),
        ("TASKADE_METRICS_TOKEN", "with a space in it", "no spaces"),
        ("TASKADE_METRICS_TOKEN", "0123456789abcd\u00e9f", "ASCII"),
        ("TASKADE_OTLP_ENDPOINT", "127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("TASKADE_OTLP_ENDPOINT", "ftp://x", "http://127.0.0.1:4318"),
    ],
)
def test_settings_that_make_no_sense(name, value, says):
    done = CliRunner().invoke(main, ["keys", "list"], env={name: value})
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith(f"Error: {name} ")
    assert says in line
