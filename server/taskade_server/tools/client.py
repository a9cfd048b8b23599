"""How the tools talk to a server: JSON over HTTP with nothing but the standard library, and failures as one sentence.

Why a failure names the address and what to do: whoever tries things out has the wrong key, the wrong port or no server
more often than anything else.
"""

import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import click

from taskade_server import __version__
from taskade_server.kit import json
from taskade_server.kit.destinations import is_loopback

TIMEOUT_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 120.0
# The server says something at least every 15 seconds.
STREAM_SECONDS: Final = 35.0
AGENT: Final = f"taskade/{__version__}"


class Failed(click.ClickException):
    """Something that was to be expected went wrong; the message is for people. `status` is the answer's, if any."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Lost(Failed):
    """The server is away for the moment, or has no room; it may be asked again."""


class Address:
    """An http:// or https:// address, checked once."""

    def __init__(self, url: str, what: str) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            self.host, self.port, self.scheme = parts.hostname or "", parts.port, parts.scheme
        except ValueError as error:
            raise Failed(f"{what} {url} is not an address: {error}.") from error
        if self.scheme not in ("http", "https") or not self.host:
            raise Failed(f"{what} is an address such as http://127.0.0.1:8000, not {url}.")
        if parts.username is not None or parts.fragment:
            raise Failed(f"{what} {url} must have neither a user name nor a part behind #.")
        self.path = parts.path
        self.query = parts.query
        self.origin = f"{self.scheme}://{parts.netloc}"
        self.text = f"{self.origin}{self.path}{f'?{self.query}' if self.query else ''}"

    @property
    def loopback(self) -> bool:
        """Whether it is certainly this machine."""
        return is_loopback(self.host)

    @property
    def target(self) -> str:
        """What a request line names."""
        return (self.path or "/") + (f"?{self.query}" if self.query else "")

    def connect(self, timeout: float, *, insecure: bool = False) -> http.client.HTTPConnection:
        """A connection that is not open yet. `insecure` takes any certificate."""
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        context = ssl.create_default_context()
        if insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)


def reason(error: Exception) -> str:
    """A failed exchange in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.HTTPException):
        return f"it does not speak HTTP ({type(error).__name__})"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


class Api:
    """A server's API with a key."""

    def __init__(self, url: str, key: str) -> None:
        self.address = Address(url, "--url")
        if not key:
            raise Failed("Give an API key with --key or TASKADE_API_KEY; `taskade keys create --name tools` makes one.")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise Failed("The API key has characters that no key has; it looks like tsk_..._....")
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json", "User-Agent": AGENT}

    def ask(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        """The JSON of a successful answer (None if it has no body). Failed with what the problem says otherwise."""
        return self.exchange(method, path, body, **parameters)[0]

    def exchange(self, method: str, path: str, body: Any = None, **parameters: Any) -> tuple[Any, Mapping[str, str]]:
        """Send a request; the decoded body and the headers, by lower-case name. Waits where a rate limit says so."""
        given = {name: value for name, value in parameters.items() if value is not None}
        target = f"{self.address.path.rstrip('/')}/v1{path}{f'?{urlencode(given)}' if given else ''}"
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            status, headers, content = self._once(method, target, body)
            pause = headers.get("retry-after", "")
            if status not in (429, 503) or not pause.isdigit() or time.monotonic() + int(pause) > until:
                break
            time.sleep(int(pause))
        if status >= 300:
            raise Failed(self.explain(status, content, f"{method} {path}"), status)
        try:
            return json.decode(content) if content else None, headers
        except ValueError as error:
            raise Failed(f"{self.address.text} answered {method} {path} with something that is not JSON.") from error

    @contextmanager
    def stream(self, path: str, **parameters: Any) -> Iterator[http.client.HTTPResponse]:
        """An answer that does not end, within a block. Failed if it is refused, Lost if there is none."""
        given = {name: value for name, value in parameters.items() if value is not None}
        target = f"{self.address.path.rstrip('/')}/v1{path}{f'?{urlencode(given)}' if given else ''}"
        with closing(self.address.connect(STREAM_SECONDS)) as connection:
            try:
                connection.request("GET", target, headers={**self._headers, "Accept": "text/event-stream"})
                response = connection.getresponse()
                content = b"" if response.status == 200 else response.read()
            except (OSError, http.client.HTTPException) as error:
                raise Lost(f"The server {self.address.text} cannot be reached: {reason(error)}.") from error
            with response:
                if response.status == 200:
                    yield response
                    return
        detail = self.explain(response.status, content, f"GET {path}")
        raise (
            Lost(detail) if response.status in (408, 429) or response.status >= 500 else Failed(detail, response.status)
        )

    def _once(self, method: str, target: str, body: Any) -> tuple[int, Mapping[str, str], bytes]:
        connection = self.address.connect(TIMEOUT_SECONDS)
        content = None if body is None else json.encode_bytes(body)
        headers = self._headers if content is None else {**self._headers, "Content-Type": "application/json"}
        try:
            connection.request(method, target, content, headers)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"The server {self.address.text} cannot be reached: {reason(error)}.") from error
        finally:
            connection.close()

    def explain(self, status: int, content: bytes, what: str) -> str:
        """An error answer as one sentence."""
        try:
            problem = json.decode(content)
            details = [_worded(issue) for issue in problem.get("errors", [])] or [problem["detail"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{self.address.text} answered {what} with {status}, not as a Taskade server does: is it one?"
        if status == 401:
            return f"{self.address.text} does not take the key: {' '.join(details)}"
        return f"{what} was refused ({status}): {' '.join(details)}"


def _worded(issue: Mapping[str, str]) -> str:
    """A fault with its place, unless its words name that anyway."""
    member = (issue.get("pointer") or issue.get("parameter") or "").rpartition("/")[2]
    return issue["detail"] if member in issue["detail"] else f"{member}: {issue['detail']}"
