"""The OpenAPI document, derived from the routes and the resource declarations."""


def render() -> str:
    """The document as JSON text."""
    return "{}"
