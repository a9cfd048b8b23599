"""The house rules that a linter cannot know, as tests over the server's syntax trees.

Why: "a row cannot change without its event" holds only as long as one function does both, and a rule that is
only written down holds until the first hurry. Each test names the place to put the code instead.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.planted import BUGS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "server" / "taskade_server"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 50
MAX_CLASS_LINES = 249
MAX_FILE_LINES = 699

WRITES = re.compile(
    r"^\s*(WITH\b.*\)\s*)?"
    r"((INSERT|REPLACE|MERGE)\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\S+(\s+(AS\s+)?\w+)?\s+SET|DELETE\s+FROM)\b",
    re.IGNORECASE | re.DOTALL,
)

WRITERS = ("engine/log/appending.py", "engine/log/rows.py")
"""What `engine/log.apply` writes with, outside the store."""

FORMATTER_OFF = "# fmt: " + "skip"

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def name(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {name(module): ast.parse(module.read_text(encoding="utf-8")) for module in MODULES}


def nodes(trees: dict[str, ast.Module], *kinds: type[ast.AST]) -> Iterator[tuple[str, Any]]:
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield module, node


def text_of(node: ast.AST) -> str:
    """The text of a literal; the computed parts of an f-string count as a word."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_rows_are_written_only_by_the_log_and_the_store(trees):
    """`engine/log.apply` writes a row and appends its event in one transaction. A write anywhere else would
    be a change that webhooks, streams, sync, automations and the audit log never hear of: use `apply`.
    (`store` writes what is no resource: its own tables and migrations.)
    """
    docstrings = {id(node.value) for _, node in nodes(trees, ast.Expr)}
    wrong = {
        f"{module}:{node.lineno}: {' '.join(text_of(node).split())[:60]}"
        for module, node in nodes(trees, ast.Constant, ast.JoinedStr)
        if module not in WRITERS and not module.startswith("store/") and WRITES.match(text_of(node))
        if id(node) not in docstrings
    }
    assert not wrong, sorted(wrong)


def test_only_the_store_commits(trees):
    """A unit of work is a function handed to `db.write`; the store decides when it is durable."""
    wrong = [
        f"{module}:{node.lineno}"
        for module, node in nodes(trees, ast.Call)
        if isinstance(node.func, ast.Attribute)
        and node.func.attr in ("commit", "rollback")
        and not module.startswith("store/")
    ]
    assert wrong == []


def test_the_database_is_told_for_whom_a_request_asks(trees):
    """Callers take turns at the database, so each use of it in `http` says whose turn it is (`caller=`)."""
    wrong = [
        f"{module}:{node.lineno}"
        for module, node in nodes(trees, ast.Call)
        if isinstance(node.func, ast.Attribute)
        and node.func.attr in ("read", "write")
        and ast.unparse(node.func.value).split(".")[-1] in ("db", "_db", "replica")
        and module.startswith("http/")
        and "caller" not in {keyword.arg for keyword in node.keywords}
    ]
    assert wrong == []


def test_what_a_function_needs_is_handed_to_it(trees):
    """A ContextVar is a global that no signature shows: make it an argument."""
    wrong = [
        f"{module}:{node.lineno}"
        for module, node in nodes(trees, ast.Import, ast.ImportFrom)
        if "contextvars" in (getattr(node, "module", ""), *(alias.name for alias in node.names))
    ]
    assert wrong == []


def test_functions_fit_on_a_screen(trees):
    """A longer one hides a second idea: give that idea a name."""
    wrong = [
        f"{module}:{node.lineno}: {node.name} has {length} lines"
        for module, node in nodes(trees, *FUNCTIONS)
        if (length := node.end_lineno - node.lineno + 1) > MAX_LINES
    ]
    assert wrong == []


def test_classes_and_files_can_be_read_at_one_sitting(trees):
    """A larger one does two things: find the seam between them."""
    wrong = [
        f"{module}:{node.lineno}: {node.name} has {length} lines"
        for module, node in nodes(trees, ast.ClassDef)
        if (length := node.end_lineno - node.lineno + 1) > MAX_CLASS_LINES
    ]
    wrong += [
        f"{name(module)} has {length} lines"
        for module in MODULES
        if (length := len(module.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    ]
    assert wrong == []


def test_our_modules_are_imported_at_the_top(trees):
    """An import inside a function hides a cycle from the reader: move the shared part down.

    One is allowed, which has the layers' check against a cycle: a server on SQLite needs no driver of PostgreSQL, which
    would be an eighth of its memory.
    """
    wrong = [
        f"{module}:{inner.lineno}"
        for module, node in nodes(trees, *FUNCTIONS)
        for inner in ast.walk(node)
        if (module, getattr(inner, "module", "")) != ("store/database.py", "taskade_server.store.postgresql")
        if (isinstance(inner, ast.Import) and any(alias.name.startswith("taskade_server") for alias in inner.names))
        or (
            isinstance(inner, ast.ImportFrom) and (inner.level > 0 or (inner.module or "").startswith("taskade_server"))
        )
    ]
    assert wrong == []


def test_what_only_some_servers_need_is_loaded_by_them_alone():
    """The driver of PostgreSQL alone is 12 MB, and 60 ms of each start."""
    code = "import sys, taskade_server.__main__; print([name for name in sys.argv[1:] if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code, "psycopg", "valkey", "opentelemetry"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def is_table(node: ast.AST | None) -> bool:
    """Whether this is a literal list, tuple, set or dict of three or more rows on three or more lines."""
    rows = getattr(node, "values" if isinstance(node, ast.Dict) else "elts", ())
    return len(rows) >= 3 and node.end_lineno - node.lineno >= 2  # type: ignore[union-attr]


def table_ends(tree: ast.Module) -> Iterator[int]:
    """The last lines of what may be laid out by hand.

    That is a table that a name stands for or a function returns, and an argument that is one: of a decorator
    (`parametrize`), or of a call that makes a constant of the module (`Resource`, `Document`).
    """
    marked: list[tuple[ast.AST, ast.expr | None, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Return):
            marked.append((node, node.value, node in tree.body))
        marked += [(decorator, decorator, True) for decorator in getattr(node, "decorator_list", ())]
    for statement, value, outermost in marked:
        parts: list[ast.AST | None] = [value]
        if outermost and isinstance(value, ast.Call):
            parts += [*value.args, *(keyword.value for keyword in value.keywords)]
        if any(map(is_table, parts)):
            yield statement.end_lineno  # type: ignore[attr-defined]


def test_only_tables_are_laid_out_by_hand():
    """`# fmt: skip` is for literals whose rows are easier to compare when aligned; anything else is the formatter's."""
    wrong = []
    for folder in ("server", "tests", "benchmarks"):
        for module in sorted((ROOT / folder).rglob("*.py")):
            lines = module.read_text(encoding="utf-8").splitlines()
            marked = {number for number, line in enumerate(lines, 1) if line.endswith(FORMATTER_OFF)}
            if marked:
                free = set(table_ends(ast.parse("\n".join(lines))))
                wrong += [f"{module.relative_to(ROOT)}:{number}" for number in sorted(marked - free)]
    assert wrong == []


def test_types_need_no_secret_imports(trees):
    """TYPE_CHECKING lets two modules depend on each other unseen. Depend on the lower one or a Protocol."""
    wrong = [
        f"{module}:{node.lineno}"
        for module, node in nodes(trees, ast.Name, ast.Attribute, ast.alias)
        if "TYPE_CHECKING" in (getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", ""))
    ]
    assert wrong == []


def test_every_module_says_what_it_is_for(trees):
    assert [module for module, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_the_write_rule_recognises_writes():
    writes = [
        "INSERT INTO tasks VALUES (?)",
        "\n  insert or ignore into x SELECT 1",
        "UPDATE tasks SET name = ?",
        "DELETE FROM tasks",
        "WITH gone AS (SELECT 1) DELETE FROM tasks",
    ]
    assert [text for text in writes if not WRITES.match(text)] == []
    prose = ["Update the task.", "Delete the task from the list", "insert", "SELECT 1", "Replace it"]
    assert [text for text in prose if WRITES.match(text)] == []


def test_the_package_declares_what_the_lock_files_install():
    """Two lists of the same names: one for who installs the package, one for the versions we test."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [line for line in (ROOT / "requirements" / "base.in").read_text().split("\n") if line and line[0] != "#"]
    assert sorted(re.sub(r"[<>=!~].*", "", item) for item in declared) == sorted(wanted)


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.lock")), ids=lambda path: path.name)
def test_lock_files_name_no_registry(lock):
    """They must work wherever the machine's own settings find packages."""
    assert not re.search(r"://|--(extra-)?index-url|--find-links", lock.read_text())


def test_the_node_lock_file_names_no_registry():
    lock = (ROOT / "tests" / "story" / "node" / "package-lock.json").read_text()
    assert '"resolved"' not in lock


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_each_planted_bug_has_its_place_in_the_code(bug):
    """Who changes such a line brings `tests/faults/planted.py` up to date, or the proof of the tests is gone."""
    assert (PACKAGE / bug.module).read_text(encoding="utf-8").count(bug.right) == 1, bug.module
    for test in re.findall(r"tests/\S+\.py", bug.test):
        assert (ROOT / test).exists()
