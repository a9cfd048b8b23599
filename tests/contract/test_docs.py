"""The documentation: whatever the server has is mentioned in it, and what it shows can be run.

Why both: what is not mentioned does not exist for a reader, and the first command that fails is the last one they try.
A block whose fence says `run` is run as a reader would, in the order of the page; `run 412` is what curl is answered.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import pytest
from taskade_server import __main__ as command_line
from taskade_server.domain import identity
from taskade_server.engine import events, filters
from taskade_server.engine.model import REGISTRY, Field, Resource
from taskade_server.http.routes import all_routes
from taskade_server.kit.errors import problem_classes
from taskade_server.store import deliveries

from tests.support import toolchains
from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCES = sorted((ROOT / "server" / "taskade_server").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<language>sh|js|python) run(?: (?P<status>\d{3}))?\n(?P<text>.*?)^```$", re.M | re.S)
ADDRESS = "http://127.0.0.1:8000"

# curl as the pages have it, but silent about its progress, and failing unless the status is the expected one.
SHELL = """
set -eo pipefail
curl() {
    local body status
    body=$(mktemp)
    status=$(command curl -sS -o "$body" -w '%{http_code}' "$@")
    cat "$body"
    rm "$body"
    [[ $status == $EXPECTED* ]] || { echo "answered $status instead of $EXPECTED: curl $*" >&2; return 22; }
}
"""


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def missing(names: Iterable[str], text: str) -> list[str]:
    """The names that stand nowhere in a text between backticks, alone or with something around them."""
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    return sorted(name for name in set(names) if not re.search(rf"(?<![\w$-]){re.escape(name)}(?![\w-])", code))


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.M | re.S | re.I)
    return found[1] if found else ""


def literals(module: Path) -> Iterator[str]:
    """The strings in a module's code."""
    for node in ast.walk(ast.parse(read(module))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


# ---- everything is mentioned -----------------------------------------------------------------------------------------


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        yield f"{name} {word}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")


def test_commands_and_options():
    everything = "\n".join(read(page) for page in PAGES)
    wanted: set[str] = set()
    for name, command in commands(command_line.main, "taskade"):
        wanted.add(name)
        for option in command.params:
            if isinstance(option, click.Option):
                wanted |= {flag for flag in option.opts if flag.startswith("--")}
    assert missing(wanted, everything) == []


def test_environment_variables():
    used = {
        name for module in SOURCES for text in literals(module) for name in re.findall(r"\bTASKADE_[A-Z_]+\b", text)
    }
    assert missing(used, section(read(ROOT / "README.md"), "Configuration")) == []


def test_make_targets():
    targets = re.findall(r"^([a-z]+):.*## ", read(ROOT / "Makefile"), re.M)
    assert missing([f"make {target}" for target in targets], read(ROOT / "README.md")) == []


def test_error_codes():
    rows = re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", read(DOCS / "guides" / "errors.md"), re.M)
    assert {(int(status), code) for status, code in rows} == {(cls.status, cls.code) for cls in problem_classes()}


def test_codes_of_single_faults():
    """Read from the calls that report one: `Issue(code, ...)`, `fault(place, code)`, `_fault(place, code)`."""
    codes: set[str] = set()
    for module in SOURCES:
        for node in ast.walk(ast.parse(read(module))):
            if isinstance(node, ast.Call):
                name = str(getattr(node.func, "attr", None) or getattr(node.func, "id", ""))
                place = {"Issue": 0, "fault": 1, "_fault": 1}.get(name, len(node.args))
                codes |= {str(code.value) for code in node.args[place : place + 1] if isinstance(code, ast.Constant)}
    assert len(codes) > 30, "the calls are spelled differently now: mend this test"
    assert missing(codes, read(DOCS / "guides" / "errors.md")) == []


def test_operators_and_parameters():
    page = read(DOCS / "guides" / "filters.md")
    assert missing([*filters.OPERATORS, *filters.GROUPS, *filters.RESERVED], page) == []


def test_event_types():
    assert missing(events.catalogue(), read(DOCS / "guides" / "events.md")) == []


def test_what_the_domain_calls_an_event_is_a_declared_type():
    named = {
        text for module in SOURCES for text in literals(module) if text.partition(".")[0] in REGISTRY and "." in text
    }
    named = {text for text in named if re.fullmatch(r"[a-z_]+\.[a-z]+", text) and not text.endswith(".id")}
    assert named - set(events.catalogue()) == {deliveries.TEST}  # which is sent without having happened


def members(fields: tuple[Field, ...]) -> Iterator[str]:
    for field in fields:
        yield field.name
        yield from members(field.members)


@pytest.mark.parametrize("resource", REGISTRY.values(), ids=lambda resource: resource.name)
def test_fields_and_includes(resource: Resource):
    page = read(DOCS / "guides" / "resources.md")
    own = read(DOCS / "guides" / "keys.md") if resource is identity.API_KEY else section(page, resource.plural)
    names = [*members(tuple(resource.fields.values())), *resource.includes]
    assert missing(names, own + section(page, "Common to all")) == []


def test_scopes():
    assert missing(list(identity.SCOPES), section(read(DOCS / "guides" / "keys.md"), "Scopes")) == []


def test_paths():
    everything = "\n".join(read(page) for page in PAGES)
    words = {part for route in all_routes() for part in route.path.split("/") if part and not part.startswith("{")}
    assert [word for word in sorted(words) if f"/{word}" not in everything] == []


def test_dependencies_have_a_reason():
    page = read(next((DOCS / "decisions").glob("0012-*.md")))
    lines = "\n".join(read(path) for path in (ROOT / "requirements").glob("*.in")).split("\n")
    wanted = {re.split(r"[<>=!~\[ ;]", line)[0] for line in lines if line and line[0] not in "#-"}
    wanted |= set(json.loads(read(ROOT / "tests" / "story" / "node" / "package.json"))["dependencies"])
    assert missing(wanted, page) == []


# ---- it holds together -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    broken = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", read(page)):
        if "://" not in target:
            there = page.parent / target if target else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                broken.append(f"{target}#{anchor}")
    assert broken == []


def anchors(page: Path) -> set[str]:
    """What a link may name behind the #: the headings, as the usual renderers spell them."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_decisions_are_numbered():
    names = [path.name for path in sorted((DOCS / "decisions").glob("*.md"))]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


# ---- what it shows can be run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def docs_server(make_server: Callable[..., Server]) -> Server:
    """A newcomer's server, and the two people of the examples."""
    server = make_server().start()
    with server.client() as client:
        for name, handle in (("Ana Lima", "ana"), ("Tom Berg", "tom")):
            body = {"name": name, "handle": handle, "email": f"{handle}@example.com"}
            assert client.post("/v1/users", json=body).status_code == 201
    return server


def script(page: Path, address: str) -> str:
    """One shell script of all blocks of a page that are to be run, with the function of the guides."""
    texts = [SHELL]
    found = [*BLOCK.finditer(read(DOCS / "README.md")), *BLOCK.finditer(read(page))]
    for number, block in enumerate(found):
        texts += [f"EXPECTED={block['status'] or 2}", f"echo '--- {page.name}, block {number}' >&2"]
        if block["language"] == "sh":
            texts.append(block["text"])
            continue
        name = block["text"].split("\n", 1)[0].lstrip("#/ ")
        program = {"js": "node", "python": "python"}[block["language"]]
        texts.append(f"cat > {name} <<'END-OF-FILE'\n{block['text']}END-OF-FILE\n{program} {name}")
    return "\n".join(texts).replace(ADDRESS, address)


RUNNABLE = [page for page in PAGES if BLOCK.search(read(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples(page: Path, docs_server: Server, tmp_path: Path):
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl or bash is not installed on this machine")
    with docs_server.client() as client:
        project = client.post("/v1/projects", json={"name": f"Examples of {page.stem}"}).json()["id"]
        task = client.post("/v1/tasks", json={"name": "An example", "project_id": project}).json()["id"]
    programs = [str(Path(sys.executable).parent), str(toolchains.node().parent), os.environ["PATH"]]
    environment = {"PATH": os.pathsep.join(programs), "KEY": docs_server.key, "PROJECT": project, "TASK": task}
    done = subprocess.run(
        ["bash", "-c", script(page, docs_server.url)], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
