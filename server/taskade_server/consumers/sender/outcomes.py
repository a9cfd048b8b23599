"""Writing down what attempts lead to; an endpoint that is gone or fails for days is disabled."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from taskade_server.consumers.runner import Lease
from taskade_server.consumers.sender.attempts import GONE, OWN
from taskade_server.consumers.sender.endpoint_queue import EndpointQueue, epoch_ms_of
from taskade_server.domain import webhooks
from taskade_server.kit import time
from taskade_server.store.database import BadQuery, ConstraintFailed, Database, Tx
from taskade_server.store.tables import deliveries
from taskade_server.store.tables.deliveries import SUCCEEDED, Outcome

logger: Final = logging.getLogger("taskade")

FAILING_DAYS: Final = 5
"""How long an endpoint may take nothing before it is disabled."""


@dataclass(frozen=True, slots=True)
class OutcomeWriter:
    """Writes down what attempts lead to, as long as the lease is held."""

    db: Database
    lease: Lease

    async def write(self, batch: Sequence[tuple[EndpointQueue, Outcome]]) -> None:
        """Write outcomes. One that the database does not take is kept without what came back, and holds up no other."""
        paused = {queue.endpoint.id: epoch_ms_of(queue.paused_until) for queue, _ in batch}
        try:
            await self.db.write(partial(self._write, [outcome for _, outcome in batch], paused))
        except (BadQuery, ConstraintFailed):
            if len(batch) > 1:
                for one in batch:
                    await self.write([one])
                return
            outcome = batch[0][1]
            logger.exception("The attempt on %s cannot be kept as it was.", outcome.delivery.id)
            bare = outcome.attempt._replace(response_headers="[]", response_body="")
            await self.db.write(partial(self._write, [outcome._replace(attempt=bare)], paused))

    def _write(self, outcomes: Sequence[Outcome], paused: Mapping[str, int | None], tx: Tx) -> None:
        self.lease.hold(tx)
        deliveries.record(tx, outcomes)
        for webhook_id, paused_until in paused.items():
            own = [outcome for outcome in outcomes if outcome.delivery.webhook_id == webhook_id]
            if own:
                note(tx, own, paused_until)


def note(tx: Tx, outcomes: Sequence[Outcome], paused_until: int | None) -> None:
    """What attempts tell about their endpoint; one that is gone or fails for days is disabled."""
    last = outcomes[-1]
    webhook_id, workspace_id, at = last.delivery.webhook_id, last.delivery.workspace_id, last.attempt.at
    if any(outcome.attempt.status == GONE for outcome in outcomes):
        webhooks.disable(tx, webhook_id, "gone")
    if any(outcome.state == SUCCEEDED for outcome in outcomes):
        deliveries.note_success(tx, webhook_id, workspace_id, at)
        return
    if all(outcome.attempt.error in OWN for outcome in outcomes):
        return
    since = deliveries.note_failure(tx, webhook_id, workspace_id, at, paused_until)
    if at - since > FAILING_DAYS * time.DAY_MS:
        webhooks.disable(tx, webhook_id, "failing")
