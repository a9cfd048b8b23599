"""The command line starts at once: what a command does not need is not loaded for it.

Why modules and not seconds: a count is the same on a busy machine.
"""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from taskade_server.__main__ import COMMANDS, OF_KEYS_ALONE, main
from taskade_server.config import Config
from taskade_server.installation import open_database

# Each of these alone takes longer to load than everything that listing keys needs of ours.
SERVER = ("taskade_server.app", "taskade_server.http", "taskade_server.consumers", "granian", "uvloop")
LIBRARIES = ("prometheus_client", "opentelemetry", "psycopg", "valkey", "cryptography", "h11", "zstandard")

LOADED = """
import sys
from taskade_server.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""


def loaded_by(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_what_is_said_of_the_command_itself_loads_nothing_else(option):
    ours = {name for name in loaded_by(option) if name.startswith("taskade_server")}
    assert ours == {"taskade_server", "taskade_server.__main__"}


def test_listing_keys_loads_no_server(tmp_path):
    db, _ = open_database(Config(data=tmp_path))
    db.close_sync()
    loaded = loaded_by("keys", "list", "--data", str(tmp_path))
    assert loaded.isdisjoint({*SERVER, *LIBRARIES})
    assert len(loaded) < 500, "as many modules as that take a third of a second"


WHOLE = """
import sys
from taskade_server.__main__ import main
main.commands[sys.argv[1]]
model = sys.modules.get("taskade_server.engine.model")
known = set(model.REGISTRY) if model else None
from taskade_server.domain import resources
from taskade_server.engine.model import REGISTRY
print(known is None or known == set(REGISTRY))
"""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in OF_KEYS_ALONE])
def test_a_command_that_knows_of_a_resource_knows_of_all(name):
    done = subprocess.run([sys.executable, "-c", WHOLE, name], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"], done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_of_a_command_what_the_command_says_of_itself(name):
    assert (main.commands[name].help or "").startswith(COMMANDS[name][1].removesuffix("."))


def test_a_misspelled_command_is_told_the_nearest(capsys):
    with pytest.raises(SystemExit):
        main(["sevre"])
    assert "serve" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "worker", "check", "backup"])
def test_an_empty_database_url_is_refused(command, tmp_path):
    """As from a variable of the shell that is not set: SQLite is not what was asked for."""
    place = ["--data", str(tmp_path / "data"), *(["x.backup"] if command == "backup" else [])]
    for empty in ("", " "):
        done = CliRunner().invoke(main.commands[command], [*place, "--database-url", empty])
        assert done.exit_code == 1 and done.stdout == ""
        assert done.stderr.startswith("Error: --database-url is empty: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_an_empty_variable_is_one_that_is_not_set(tmp_path):
    done = CliRunner().invoke(main.commands["check"], ["--data", str(tmp_path)], env={"TASKADE_DATABASE_URL": ""})
    assert "There is no database in" in done.stderr
