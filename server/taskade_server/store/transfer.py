"""Copies all rows of a database into another one that has the same schema, whichever of the two databases each is.

Why page by page along the primary key: neither driver needs a cursor of its own for it, and the memory it takes does
not depend on how much there is. Search indexes are the one thing that the two databases hold differently.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from taskade_server.store.interface import Row, Tx

PAGE_ROWS = 1000
HISTORY = "schema_migrations"
# They hold a few rows from the first moment: an empty database is one in which nothing else does.
NEVER_EMPTY = ("counters", "settings")

Words = Mapping[str, Callable[[str], str]]
"""For each searchable table: the words of a row, separated by spaces, from its document."""
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Table:
    """A table that both databases have; `searchable` ones have a full-text index beside it."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    searchable: bool = False

    @property
    def names(self) -> str:
        """The columns as SQL."""
        return _names(self.columns)


def tables(tx: Tx) -> list[Table]:
    """The tables of an SQLite database, without those that SQLite and the migrations keep for themselves."""
    rows = tx.all(
        "SELECT t.name, c.name, c.pk FROM pragma_table_list t, pragma_table_info(t.name) c WHERE t.schema = 'main'"
        f" AND t.type = 'table' AND t.name NOT LIKE 'sqlite%' AND t.name <> '{HISTORY}' ORDER BY t.name, c.cid"
    )
    virtual = {row[0] for row in tx.all("SELECT name FROM pragma_table_list WHERE type = 'virtual'")}
    found: dict[str, list[tuple[str, int]]] = {}
    for table, column, number in rows:
        found.setdefault(table, []).append((column, number))
    return [
        Table(
            name,
            tuple(column for column, _ in columns),
            tuple(column for column, number in sorted(columns, key=lambda pair: pair[1]) if number),
            f"{name}_fts" in virtual,
        )
        for name, columns in found.items()
    ]


def count(tx: Tx, table: Table) -> int:
    """How many rows a table has."""
    row = tx.one(f'SELECT count(*) FROM "{table.name}"')
    return int(row[0]) if row else 0


def pages(
    tx: Tx, table: str, columns: Sequence[str], key: Sequence[str], *, more: Sequence[str] = ()
) -> Iterator[list[Row]]:
    """All rows of a table in the order of its key, some at a time; `more` are expressions beside the columns."""
    select = f'SELECT {", ".join([_names(columns), *more])} FROM "{table}"'
    order = f"ORDER BY {_names(key)} LIMIT {PAGE_ROWS}"
    indexes = [columns.index(name) for name in key]
    page = tx.all(f"{select} {order}")
    while page:
        yield page
        if len(page) < PAGE_ROWS:
            return
        last = [page[-1][index] for index in indexes]
        page = tx.all(f"{select} WHERE ({_names(key)}) > ({_marks(len(key))}) {order}", last)


def from_postgresql(
    source: Tx, write: Callable[[Callable[[Tx], None]], None], all_tables: Sequence[Table], progress: Progress
) -> None:
    """Copy PostgreSQL's rows into SQLite. `write` runs a unit there: one for each page, as nobody uses the file yet."""
    for table in all_tables:
        done, total = 0, count(source, table)
        write(partial(_clear, table=table))
        words = ["array_to_string(tsvector_to_array(search), ' ')"] if table.searchable else []
        for page in pages(source, table.name, table.columns, table.key, more=words):
            write(partial(_into_sqlite, table=table, page=page))
            done += len(page)
            progress(f"copying {table.name}", done, total)


def into_postgresql(source: Tx, target: Tx, all_tables: Sequence[Table], words: Words, progress: Progress) -> None:
    """Copy SQLite's rows into PostgreSQL, in the target's one unit."""
    for table in all_tables:
        done, total = 0, count(source, table)
        target.run(f'DELETE FROM "{table.name}"')
        columns, marks = table.names, _marks(len(table.columns))
        if table.searchable:
            columns, marks = f"{columns}, search", f"{marks}, array_to_tsvector(?::text[])"
        sql = f'INSERT INTO "{table.name}" ({columns}) VALUES ({marks})'
        for page in pages(source, table.name, table.columns, table.key):
            rows: Sequence[Sequence[object]] = page
            if table.searchable:
                doc, words_of = table.columns.index("doc"), words[table.name]
                rows = [[*row, words_of(row[doc]).split()] for row in page]
            target.many(sql, rows)
            done += len(page)
            progress(f"copying {table.name}", done, total)
        if table.key == ("n",):
            # The next row's number must be higher than all that were copied.
            target.all(
                f"SELECT setval(pg_get_serial_sequence(?, 'n'), COALESCE(MAX(n), 0) + 1, false) FROM \"{table.name}\"",
                (table.name,),
            )
    target.script("ANALYZE")


def lock_postgresql(tx: Tx, all_tables: Sequence[Table]) -> None:
    """Keep everybody else from writing until the end of the unit."""
    names = ", ".join(f'"{table.name}"' for table in all_tables)
    tx.script(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")


def occupied(tx: Tx) -> list[str]:
    """The tables of a PostgreSQL database that hold somebody's data."""
    rows = tx.all(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')"
        " AND s.nspname = current_schema() ORDER BY c.relname"
    )
    names = [row[0] for row in rows if row[0] not in (*NEVER_EMPTY, HISTORY)]
    return [name for name in names if tx.one(f'SELECT 1 FROM "{name}" LIMIT 1')]


def _into_sqlite(tx: Tx, table: Table, page: Sequence[Row]) -> None:
    width = len(table.columns)
    tx.many(f'INSERT INTO "{table.name}" ({table.names}) VALUES ({_marks(width)})', [row[:width] for row in page])
    if table.searchable:
        n = table.columns.index("n")
        # A row without words is one that the source could not find either: whoever verifies the copy will notice.
        words = [(row[n], row[width]) for row in page if row[width] is not None]
        tx.many(f'INSERT INTO "{table.name}_fts" (rowid, words) VALUES (?, ?)', words)


def _clear(tx: Tx, table: Table) -> None:
    """A connection that is lost makes the copying begin anew."""
    tx.run(f'DELETE FROM "{table.name}"')
    if table.searchable:
        tx.run(f'INSERT INTO "{table.name}_fts" ("{table.name}_fts") VALUES (\'delete-all\')')


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _marks(count: int) -> str:
    return ", ".join("?" * count)
