"""Comments: what their ordinary operations say about themselves."""

from typing import Final

from taskade_server.engine.schema import sample_id
from taskade_server.http.api.crud import Options
from taskade_server.http.api.crud_schema import documents

_DOCUMENTS: Final = documents(
    create={"comment": ("A comment", {"task_id": sample_id("task"), "body": "Looks good to me."})},
    update={"body": ("Another text", {"body": "Looks *very* good to me."})},
)
OPTIONS: Final = Options(documents=_DOCUMENTS)
