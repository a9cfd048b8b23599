"""Run the pinned uv with the package index that pip is set up to use on this machine.

uv does not read pip's settings (pip.conf, PIP_* variables), so on a machine that reaches its packages
through a mirror, pip would work and uv would not. Translating them here keeps every address out of the
committed files. A UV_* variable that is already set wins.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

TRANSLATION = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
}
SECTIONS = ("global", "install", ":env:")  # a later one wins, as in pip


def pip_settings() -> dict[str, str]:
    """What pip would use, by option name."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in lines:
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in found:
            found[section][option] = str(ast.literal_eval(value))
    return {option: value for section in SECTIONS for option, value in found[section].items()}


def uv_environment(settings: dict[str, str]) -> dict[str, str]:
    """The environment that makes uv look where pip looks."""
    environment = dict(os.environ)
    for option, variable in TRANSLATION.items():
        if option in settings and variable not in environment:
            values = settings[option].split()
            environment[variable] = ("," if option == "find-links" else " ").join(values)
    # pip takes the best version from all of its indexes. The hashes in the lock files make that safe.
    environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return environment


def main() -> None:
    uv = Path(sys.executable).parent / "uv"
    os.execve(uv, [str(uv), *sys.argv[1:]], uv_environment(pip_settings()))


if __name__ == "__main__":
    main()
