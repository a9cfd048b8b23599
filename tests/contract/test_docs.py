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
from taskade_server.consumers.access_log import SECRET_READ
from taskade_server.domain import identity
from taskade_server.engine import events, filters
from taskade_server.engine.model import REGISTRY, Field, Resource
from taskade_server.http.routes import all_routes
from taskade_server.kit.errors import problem_classes
from taskade_server.store.tables import deliveries

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
shopt -s inherit_errexit
curl() {
    local body status
    body=$(mktemp)
    status=$(command curl "$@" -sS -o "$body" -w '%{http_code}')
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
    named -= {SECRET_READ, "secret.key"}  # an entry of the audit log about a webhook's secret, and a file
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

SET_UP = DOCS / "README.md"
INDEX = [
    ROOT / "README.md", SET_UP, DOCS / "tutorial.md",
    *(DOCS / link for link in re.findall(r"^\| \[[^]]*\]\((guides/[^)]*)\)", read(SET_UP), re.M)),
]  # fmt: skip
RUNNABLE = [page for page in INDEX if BLOCK.search(read(page))]


def test_every_page_with_examples_is_in_the_index():
    assert [page for page in PAGES if BLOCK.search(read(page)) and page not in INDEX] == []
    assert set((DOCS / "guides").glob("*.md")) <= set(INDEX)


@pytest.mark.parametrize("page", RUNNABLE[3:], ids=lambda page: page.stem)
def test_a_guide_with_examples_leads_to_the_set_up(page: Path):
    assert "](../README.md#set-up-for-the-examples)" in read(page).partition("```")[0]


def test_no_example_names_a_server_of_its_own():
    """So that one line is to be changed by whoever has another address."""
    found = {page.name: re.findall(ADDRESS, "".join(m["text"] for m in BLOCK.finditer(read(page)))) for page in PAGES}
    assert not any(found.values()), found


def script(page: Path) -> Iterator[str]:
    """The lines that run all blocks of a page, each block in the same shell."""
    for number, block in enumerate(BLOCK.finditer(read(page))):
        yield f"EXPECTED={block['status'] or 2}; echo '--- {page.name}, block {number}' >&2"
        if block["language"] == "sh":
            yield block["text"]
            continue
        name = block["text"].split("\n", 1)[0].lstrip("#/ ")
        program = {"js": "node --experimental-eventsource", "python": "python"}[block["language"]]
        yield f"cat > {name} <<'END-OF-FILE'\n{block['text']}END-OF-FILE\n{program} {name}"


def run_pages(pages: Iterable[Path], server: Server, folder: Path) -> None:
    """Paste all blocks of some pages into one shell, as somebody does who has just started the server."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl or bash is not installed on this machine")
    programs = [str(Path(sys.executable).parent), str(toolchains.node().parent), os.environ["PATH"]]
    environment = {"PATH": os.pathsep.join(programs), "KEY": server.key, "BASE": server.url}
    environment |= {name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ}
    done = subprocess.run(
        ["bash", "-c", "\n".join([SHELL, *(line for page in pages for line in script(page))])],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_all_pages_can_be_pasted_one_after_the_other(start_server: Callable[..., Server], tmp_path: Path):
    """So no page takes away what the next one needs."""
    run_pages(RUNNABLE, start_server(), tmp_path)


# On one database: above, all pages run on both, and what a page needs of those before it does not depend on that.
@pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_page_can_be_pasted_by_itself(page: Path, start_server: Callable[..., Server], tmp_path: Path):
    run_pages([page] if page == SET_UP else [SET_UP, page], start_server(), tmp_path)
