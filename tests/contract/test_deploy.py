"""The files in deploy/ name only what there is: settings, commands, options, addresses, each other.

Why a test: nobody runs them here, and the first who does is about to put the server into production.
"""

import configparser
import re
from pathlib import Path
from typing import Any

import click
import pytest
from taskade_server.__main__ import main
from taskade_server.config import Config

from tests.contract.test_docs import ROOT, SOURCES, literals, read

DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file() and not path.name.startswith("."))
UNITS = [path for path in FILES if path.suffix == ".service"]
TEXTS = [text for module in SOURCES for text in literals(module)]
PORT = str(Config().port)


def name(path: Path) -> str:
    return path.name


def settings_of(*texts: str) -> set[str]:
    return {found for text in texts for found in re.findall(r"\bTASKADE_[A-Z_]+\b", text)}


def known(words: list[str]) -> bool:
    """Whether `taskade WORDS` is a command with these options."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    flags = {flag for option in command.params for flag in option.opts}
    return not isinstance(command, click.Group) and {word for word in words if word.startswith("-")} <= flags


@pytest.mark.parametrize("path", FILES, ids=name)
def test_settings_exist(path):
    assert settings_of(read(path)) <= settings_of(*TEXTS)


def test_settings_of_the_guide_exist():
    assert settings_of(read(ROOT / "docs" / "guides" / "deployment.md")) <= settings_of(*TEXTS)


def test_every_file_is_in_the_guide():
    guide = read(ROOT / "docs" / "guides" / "deployment.md") + read(ROOT / "docs" / "guides" / "backup.md")
    named = [path for path in FILES if path.suffix in (".yaml", ".cfg") or path.name == "taskade-backup.timer"]
    assert [path.name for path in named if f"deploy/{path.name}" not in guide] == []


# ---- systemd ---------------------------------------------------------------------------------------------------------


class _Unit(configparser.RawConfigParser):
    """A unit file; of settings that are given several times it keeps the last."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit(path: Path) -> _Unit:
    parser = _Unit(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.read_string(read(path))
    return parser


@pytest.mark.parametrize("path", UNITS, ids=name)
def test_units_start_commands_that_there_are(path):
    found = re.search(r"/opt/taskade/\.venv/bin/taskade ([^\"'\n]*)", unit(path)["Service"]["ExecStart"])
    assert found is not None and known(found[1].split())


@pytest.mark.parametrize("path", UNITS, ids=name)
def test_units_may_do_little(path):
    service = unit(path)["Service"]
    assert service["User"] == "taskade" and service["CapabilityBoundingSet"] == ""
    wanted = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "StateDirectoryMode": "0700"}
    assert {key: service[key] for key in wanted} == wanted
    assert "WatchdogSec" not in service, "the server tells no watchdog that it is alive"
    assert "/var/lib/taskade" in service["Environment"] and "taskade" in service["StateDirectory"].split()


def test_the_timer_has_its_service():
    for timer in DEPLOY.glob("*.timer"):
        assert timer.with_suffix(".service") in UNITS
        assert "OnCalendar" in unit(timer)["Timer"]


def test_a_stopped_server_gets_the_time_it_needs():
    service = unit(DEPLOY / "taskade.service")["Service"]
    assert int(service["TimeoutStopSec"]) > 30
    assert service["ExecReload"].endswith("-HUP $MAINPID")


# ---- the image -------------------------------------------------------------------------------------------------------


def test_the_image_is_made_of_what_there_is():
    text = read(DEPLOY / "Dockerfile")
    sources = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M) for word in line.split()[:-1]]
    assert len(sources) > 3 and [source for source in sources if not (ROOT / source).exists()] == []
    allowed = [line[1:] for line in read(DEPLOY / "Dockerfile.dockerignore").splitlines() if line.startswith("!")]
    assert [source for source in sources if not any(Path(source).match(pattern) for pattern in allowed)] == []


def test_the_image_fetches_only_what_the_lock_file_names():
    installs = re.findall(r"pip install ([^\\\n&]*)", read(DEPLOY / "Dockerfile"))
    assert len(installs) == 3
    assert [words for words in installs if "--require-hashes" not in words and "--no-index" not in words] == []
    assert "latest" not in read(DEPLOY / "Dockerfile") and "://" not in re.sub(
        r"http://127\.0\.0\.1\S*", "", read(DEPLOY / "Dockerfile")
    )


def test_the_image_runs_as_nobody_in_particular():
    text = read(DEPLOY / "Dockerfile")
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.M)
    assert f"http://127.0.0.1:{PORT}/ready" in last and f"EXPOSE {PORT}" in last
    assert 'ENTRYPOINT ["taskade"]' in last and known(re.findall(r'^CMD \["(\w+)"\]', last, re.M))


# ---- compose and the proxy -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(read(DEPLOY / "compose.yaml"))


def test_services_wait_for_services_that_say_when_they_are_ready(compose):
    services = compose["services"]
    for service in services.values():
        for other, wait in service.get("depends_on", {}).items():
            assert wait == {"condition": "service_healthy"}
            assert "healthcheck" in services[other] or "build" in services[other], f"{other} never says so"


def test_images_have_a_version(compose):
    for service in compose["services"].values():
        assert "build" in service or re.fullmatch(r"[\w/-]+:\d[\w.]*", service["image"])


def test_our_services_run_commands_that_there_are(compose):
    ours = {title: service for title, service in compose["services"].items() if "build" in service}
    assert set(ours) == {"server-1", "server-2", "worker"}
    for service in ours.values():
        assert known(service.get("command", ["serve"]))
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert service["read_only"] and service["cap_drop"] == ["ALL"]


def test_addresses_are_those_of_services(compose):
    services = compose["services"]
    settings = services["server-1"]["environment"]
    hosts = [re.sub(r".*@", "", settings["TASKADE_DATABASE_URL"]), settings["TASKADE_VALKEY_URL"].partition("://")[2]]
    assert {re.split(r"[:/]", host)[0] for host in hosts} <= set(services)
    subnet = compose["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    assert settings["TASKADE_TRUSTED_PROXIES"] == subnet
    assert all(service["networks"] == ["inside"] for service in services.values())
    named = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {volume for volume in named if not volume.startswith(".")} == set(compose["volumes"])
    assert all((DEPLOY / volume).exists() for volume in named if volume.startswith("."))


def test_only_the_proxy_can_be_reached_from_outside(compose):
    published = {title: service["ports"] for title, service in compose["services"].items() if "ports" in service}
    [(title, [port])] = published.items()
    assert title == "proxy" and port.startswith("127.0.0.1:")
    assert f"bind :{port.rpartition(':')[2]}\n" in read(DEPLOY / "haproxy.cfg")


def test_the_proxy_knows_the_servers(compose):
    text = read(DEPLOY / "haproxy.cfg")
    servers = re.findall(r"^    server ([\w-]+) ([\w-]+):(\d+)$", text, re.M)
    ours = [title for title in compose["services"] if title.startswith("server-")]
    assert servers == [(title, title, PORT) for title in ours]
    assert "uri /ready" in text and "disable-l7-retry unless METH_GET" in text
    assert "set-header X-Forwarded-For %[src]" in text and "forwardfor" not in text


def test_a_server_says_that_it_ends_for_longer_than_the_proxy_needs_to_hear_it(compose):
    drain = int(compose["services"]["server-1"]["environment"]["TASKADE_DRAIN_SECONDS"])
    [(seconds, times)] = re.findall(r"inter (\d+)s fall (\d+)", read(DEPLOY / "haproxy.cfg"))
    assert drain > int(seconds) * int(times)
    assert int(compose["services"]["server-1"]["stop_grace_period"].rstrip("s")) > drain + 30
