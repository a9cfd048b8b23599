"""The commands that print the documents of the API."""

import click

from taskade_server.http.documents import asyncapi, openapi


@click.command("openapi")
def openapi_command() -> None:
    """Print the OpenAPI document of the API, indented."""
    click.echo(openapi.render(pretty=True), nl=False)


@click.command("asyncapi")
def asyncapi_command() -> None:
    """Print the AsyncAPI document, indented: the messages of connections that stay open."""
    click.echo(asyncapi.render(pretty=True), nl=False)
