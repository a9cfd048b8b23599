"""All that is done for automations in one process: starting runs, carrying them out, and forgetting them."""

from taskade_server.consumers.automations.jobs import Automations

__all__ = ["Automations"]
