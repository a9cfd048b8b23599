"""What a log line looks like, and how it gets to standard error: JSON for machines, text for people, one line a record.

Why a thread that writes: whoever reads our standard error may stand still, and a full pipe would then stop the event
loop and every request with it. Lines wait here for a moment instead, a bounded number of them, and go out in one write.
"""

import atexit
import logging
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Protocol

import msgspec

WRITE_SECONDS: Final = 0.1
WRITE_LINES: Final = 256  # some 64 KiB
MAX_LINES: Final = 20_000
CLOSE_SECONDS: Final = 2.0

_SECRETS: Final = re.compile(r"(tsk_[0-9a-z]{26}_)\w+|\b(bearer\s+)[^\s\"',]+|(://[^\s/:@]*:)[^\s/@]+(?=@)", re.I)
_encoder: Final = msgspec.json.Encoder(enc_hook=repr)


def redact(text: str) -> str:
    """The text without the secret part of API keys, bearer tokens and passwords in URLs."""
    return _SECRETS.sub(lambda found: f"{found[1] or found[2] or found[3]}***", text)


def printable(text: str) -> str:
    r"""The text as one line: control characters, line ends and lone surrogates are written out (`\x1b`)."""
    if text.isprintable():
        return text
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


_MILLISECONDS: Final = [f".{ms:03d}Z" for ms in range(1000)]
_known = (0, "")


def stamp(now: float) -> str:
    """A time as RFC 3339 in UTC with milliseconds; written once for each log line, so it remembers the second."""
    global _known
    second, prefix = _known
    if int(now) != second:
        second = int(now)
        prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _known = (second, prefix)
    return prefix + _MILLISECONDS[int((now - second) * 1000)]


class Later(Protocol):
    """A line that is made when it is written: many in a row take a third of what each takes between requests."""

    def render(self) -> bytes:
        """The line, without its end. It may be asked for on any thread."""


class Sink:
    """Lines on their way to a file descriptor. Before `start` and after `close` each is written at once."""

    def __init__(self, descriptor: int = 2) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._lines: list[bytes | Later] = []
        self._awake = False
        self._closing = False
        self._some = threading.Event()
        self._hurry = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """From now on a thread writes, ten times a second at most. Starting twice is harmless."""
        if self._thread is None:
            self._closing = False
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def put(self, line: bytes | Later, *, at_once: bool = False) -> None:
        """Add a line (without its end); never waits for the reader of a started sink."""
        lines = self._lines
        if len(lines) >= MAX_LINES:
            self.dropped += 1
            return
        lines.append(line)
        if self._thread is None:
            self.flush()
            return
        # First the line, then the look: the thread clears the mark before it takes the lines.
        if not self._awake:
            self._awake = True
            self._some.set()
        if (at_once or len(lines) >= WRITE_LINES) and not self._hurry.is_set():
            self._hurry.set()

    def flush(self) -> None:
        """Write what is waiting."""
        with self._writing:
            count = len(self._lines)
            lines = self._lines[:count]
            del self._lines[:count]
            try:
                for piece in _pieces(b"\n".join([*self._rendered(lines), b""])):
                    self._write(piece)
            except OSError:  # nobody reads any more, and there is no other place to say so
                self.dropped += count

    def _rendered(self, lines: Iterable[bytes | Later]) -> Iterator[bytes]:
        for line in lines:
            try:
                yield line if isinstance(line, bytes) else line.render()
            except Exception:  # the others shall be written all the same
                self.dropped += 1

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                time.sleep(0.01)

    def close(self) -> None:
        """Write what is waiting, as long as the reader takes it, and end the thread."""
        thread = self._thread
        if thread is None:
            return
        self._closing = True
        self._some.set()
        self._hurry.set()
        thread.join(CLOSE_SECONDS)
        if not thread.is_alive():
            self._thread = None
            self.flush()
        atexit.unregister(self.close)

    def _run(self) -> None:
        while not self._closing:
            self._some.wait()
            self._hurry.wait(WRITE_SECONDS)
            self._some.clear()
            self._hurry.clear()
            self._awake = False
            self.flush()


def _pieces(data: bytes) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes in one piece: processes that share it cannot tear each other's apart."""
    start = 0
    while start < len(data):
        end = start + select.PIPE_BUF
        if end < len(data):
            end = (data.rfind(b"\n", start, end) + 1) or (data.find(b"\n", end) + 1)
        yield data[start:end]
        start = end


SINK: Final = Sink()
"""Where all lines of the process go."""


class _Handler(logging.Handler):
    """Gives the records of the logging module to a sink; errors at once."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sink.put(self.format(record).encode(), at_once=record.levelno >= logging.WARNING)
        except Exception:
            self.handleError(record)


_STANDARD: Final = frozenset(vars(logging.makeLogRecord({})))
"""The attributes that every record has; what else it has came with `extra`."""


class _Formatter(logging.Formatter):
    """Makes a dictionary of each record, which `write` makes a line (in the text form lines) of.

    The usual members come first, then those of `extra`, the name of a logger that is not ours, and the traceback.
    """

    def __init__(self, write: Callable[[dict[str, Any]], str]) -> None:
        super().__init__()
        self._write = write

    def format(self, record: logging.LogRecord) -> str:
        members = {"time": stamp(record.created), "level": record.levelname.lower(), "message": record.getMessage()}
        members.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.name not in ("taskade", "root"):
            members["logger"] = record.name
        if record.exc_info and record.exc_info[0] is not None:
            members["exception"] = self.formatException(record.exc_info)
        return redact(self._write(members))


def configure(form: str, level: str, sink: Sink = SINK) -> None:
    """Send everything that is logged to the sink, as `json` or as `text`."""
    handler = _Handler(sink)
    handler.setFormatter(_Formatter(_json if form == "json" else _text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if error is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return
    logging.getLogger("taskade").critical("Uncaught: %s", error, exc_info=(kind, error, traceback))


def _json(members: dict[str, Any]) -> str:
    return encode_json(members).decode()


def encode_json(record: Any) -> bytes:
    """A record as a line of JSON, whatever is in it."""
    try:
        return _encoder.encode(record)
    except (UnicodeEncodeError, ValueError, TypeError):
        members = record if isinstance(record, dict) else msgspec.structs.asdict(record)
        plain = {str(name): printable(str(value)) for name, value in members.items()}
        return _encoder.encode(plain)


def _text(members: dict[str, Any]) -> str:
    exception = members.pop("exception", None)
    known = [members.pop(name) for name in ("time", "level", "message")]
    more = "".join(f" {name}={value}" for name, value in members.items())
    lines = [f"{known[0]} {known[1]:<8} {printable(str(known[2]) + more)}"]
    if exception is not None:
        lines += [f"    | {printable(line)}" for line in exception.splitlines()]
    return "\n".join(lines)
