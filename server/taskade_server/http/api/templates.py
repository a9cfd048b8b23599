"""Templates: what their ordinary operations say about themselves."""

from typing import Final

from taskade_server.http.api.crud import Options
from taskade_server.http.api.crud_schema import RENAME, documents

_DOCUMENTS: Final = documents(
    create={
        "template": (
            "Two tasks",
            {
                "name": "Customer onboarding",
                "project": {"type": "board"},
                "tasks": [{"name": "Kick-off call", "due_in_days": 3}, {"name": "Training", "due_in_days": 14}],
            },
        ),
    },
    update=RENAME,
)
OPTIONS: Final = Options(documents=_DOCUMENTS)
