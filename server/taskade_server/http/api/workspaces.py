"""Workspaces: what their ordinary operations say about themselves."""

from typing import Final

from taskade_server.http.api.crud import Options
from taskade_server.http.api.crud_schema import documents

_DOCUMENTS: Final = documents(
    create={"workspace": ("A workspace", {"name": "Product team", "settings": {"theme": "dark"}})},
    update={"settings": ("Settings merge", {"settings": {"notifications": True}})},
)
OPTIONS: Final = Options(documents=_DOCUMENTS)
