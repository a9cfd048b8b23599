"""Query strings: parameters taken out of one, decoded, or put into the address of the next page."""

from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from taskade_server.http.wire.reply import Header
from taskade_server.kit.errors import InvalidQuery, Issue

MAX_PARAMETERS: Final = 400


def take(query_string: str, name: str) -> tuple[str | None, str]:
    """Split off one parameter: its decoded value (None if it is missing), and the query string without it.

    InvalidQuery if it is given more than once.
    """
    if name not in query_string:
        return None, query_string
    parts = [part for part in query_string.split("&") if part]
    found = [part for part in parts if part.partition("=")[0] == name]
    if not found:
        return None, query_string
    if len(found) > 1:
        raise InvalidQuery(errors=[Issue("repeated", f"{name} stands more than once.", parameter=name)])
    return unquote_plus(found[0].partition("=")[2]), without(query_string, name)


def without(query_string: str, name: str) -> str:
    """A query string without the parameters of one name; the others stay as the client has spelled them."""
    return "&".join(part for part in query_string.split("&") if part and part.partition("=")[0] != name)


def link_to_next(url: str, query_string: str, name: str, value: object) -> Header:
    """The header Link that leads to the next page: the request's address, with another value of one parameter."""
    kept = without(query_string, name)
    return b"link", f'<{url}?{kept}{"&" if kept else ""}{name}={value}>; rel="next"'.encode()


def pairs(query_string: str) -> list[tuple[str, str]]:
    """The parameters as decoded names and values; InvalidQuery if they are not UTF-8, hold NUL, or are too many."""
    if not query_string:
        return []
    if "%" not in query_string and "+" not in query_string and "\x00" not in query_string:
        parts = [part.partition("=") for part in query_string.split("&") if part]
        if len(parts) <= MAX_PARAMETERS:
            return [(name, value) for name, _, value in parts]
    try:
        found = parse_qsl(query_string, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError as error:
        raise InvalidQuery("The query string is not percent-encoded UTF-8.") from error
    except ValueError as error:
        raise InvalidQuery(f"A request may have {MAX_PARAMETERS} parameters.") from error
    for name, value in found:
        if "\x00" in name or "\x00" in value:
            shown = name.replace("\x00", "")[:100]
            raise InvalidQuery(errors=[Issue("invalid_text", "NUL (%00) is not allowed.", parameter=shown)])
    return found


def refuse_parameters(query_string: str) -> None:
    """InvalidQuery if there are any parameters."""
    detail = "This operation takes no parameters."
    issues = [Issue("unknown_parameter", detail, parameter=name) for name, _ in pairs(query_string)]
    if issues:
        raise InvalidQuery(errors=issues)
