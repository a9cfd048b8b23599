"""Free ports, and folders that outlive neither their run nor its crash.

Why a folder of our own instead of pytest's: PostgreSQL refuses to run as root, so as root it runs as
another user, who cannot enter pytest's private folders; and UNIX socket paths must be short.
"""

import os
import shutil
import socket
import tempfile
from pathlib import Path

PREFIX = "taskade-tests-"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def make_run_folder() -> Path:
    """A folder for this run, whose name tells which process owns it."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    folder.chmod(0o755)
    return folder


def abandoned_run_folders() -> list[Path]:
    """Folders of runs of ours that were killed before they could clean up."""
    return [
        folder
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*")
        if folder.is_dir() and folder.stat().st_uid == os.geteuid() and not is_alive(_owner(folder))
    ]


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _owner(folder: Path) -> int:
    pid = folder.name.removeprefix(PREFIX).partition("-")[0]
    return int(pid) if pid.isdigit() else 0


def is_alive(pid: int) -> bool:
    """Whether a process with this number exists, whoever owns it."""
    if pid <= 0:
        return True  # not a name that we gave: none of our business
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
