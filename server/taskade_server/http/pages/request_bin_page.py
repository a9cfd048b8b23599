"""The page of a request bin: what came, newest first, readable on a desk and on a phone, by day and by night.

Why neither scripts nor anything from elsewhere: it shows what strangers sent, and must do nothing with it but show it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6577; --paper: #f6f7f9; --card: #fff; --line: #dde1e8;
  --good: #146c43; --bad: #b02a37; --code: #f0f2f5 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b5; --paper: #12161d; --card: #1a2029;
  --line: #2c3440; --good: #5dd39e; --bad: #ff8f8f; --code: #11151b } }
* { box-sizing: border-box }
body { margin: 0; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere }
p { margin: .25rem 0 1rem; color: var(--soft) }
code, pre { font: .875rem/1.5 ui-monospace, monospace }
p code { color: var(--ink); overflow-wrap: anywhere }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem;
  margin: 0 0 1rem }
header { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline }
header b { overflow-wrap: anywhere; flex: 1 1 16rem }
.good { color: var(--good) } .bad { color: var(--bad) } .soft { color: var(--soft) }
pre { background: var(--code); border-radius: .375rem; padding: .75rem; margin: .5rem 0 0; overflow: auto;
  max-height: 28rem; white-space: pre-wrap; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; font-size: .875rem; margin-top: .5rem }
th, td { text-align: left; vertical-align: top; padding: .125rem 1rem .125rem 0; overflow-wrap: anywhere }
th { font-weight: 600; white-space: nowrap; width: 1%; color: var(--soft) }
summary { cursor: pointer; color: var(--soft); padding: .25rem 0 }
summary:focus-visible, pre:focus-visible { outline: 2px solid currentColor; outline-offset: 2px }
@media (max-width: 36rem) { th, td { display: block; padding: 0; white-space: normal } td { margin-bottom: .375rem } }
"""
MAX_PAGE: Final = 1 << 20
"""Characters of all entries; what is older is left to the JSON."""
MAX_PRETTY: Final = 16 << 10
"""A longer body is shown as it came: with line ends it could be a thousand times as long."""
MAX_GROWN: Final = 64 << 10
MAX_DEPTH: Final = 20
_BRACKET: Final = re.compile(r"[][{}]")
_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Final = [
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'".encode(),
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]


def render(name: str, address: str, total: int, requests: Sequence[Mapping[str, Any]]) -> str:
    """The page of a bin with these requests, the newest first."""
    come = "Nothing has come yet." if not total else f"{total:,} request{'' if total == 1 else 's'} so far"
    found: list[str] = []
    size = 0
    for item in requests:
        entry = _entry(item)
        size += len(entry)
        if found and size > MAX_PAGE:
            break
        found.append(entry)
    shown = f", the last {len(found)} below." if total > len(found) else "." if total else ""
    entries = "\n".join(found)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Request bin {escape(name)} ({total})</title><style>{_STYLE}</style></head>
<body><main>
<h1>Request bin {escape(name)}</h1>
<p>Send to <code>{escape(address)}</code>. {come}{shown} Reload to see what is new.</p>
{entries}
</main></body></html>
"""


def _entry(item: Mapping[str, Any]) -> str:
    mark = {True: "good", False: "bad", None: "soft"}[item["verified"]]
    said = {True: "signature right", None: item["signature"] or "not signed"}.get(item["verified"], item["signature"])
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in item["headers"].items())
    cut = "" if item["size"] <= len(item["body"].encode()) else f" (the first {len(item['body']):,})"
    text = f'<pre tabindex="0">{escape(_pretty(item["body"]))}</pre>' if item["body"] else "<p>No body.</p>"
    return f"""<article>
<header><b>{item["number"]}. {escape(item["method"])} {escape(item["target"])}</b>
<span>answered {escape(item["answered"] or "nothing yet")}</span> <span class="{mark}">{escape(said)}</span></header>
<div class="soft">{item["at"]} &middot; {item["size"]:,} bytes{cut}</div>
<details><summary>{len(item["headers"])} headers</summary><table>{rows}</table></details>
{text}
</article>"""


def _pretty(text: str) -> str:
    """JSON with line ends, and as it is whatever is no JSON, or is too long or too deep, or would be."""
    if len(text) > MAX_PRETTY or _is_deep(text):
        return text
    try:
        pretty = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        pretty.encode()  # half a character, as in "\\ud800", cannot be shown
    except (ValueError, RecursionError):
        return text
    return pretty if len(pretty) <= MAX_GROWN else text


def _is_deep(text: str) -> bool:
    """Whether JSON might be nested deeper than is worth showing. Brackets within strings count, too."""
    depth = 0
    for bracket in _BRACKET.findall(text):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False
