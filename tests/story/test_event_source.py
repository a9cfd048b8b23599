"""The program of the guide that follows events in a browser, run with a real EventSource on streams that end.

A ticket is good for a minute, which no test should wait for. So what stands between the program and the server refuses
a ticket that has opened some streams, as the server does with one that has expired.
"""

import re
import socket
import subprocess
import time
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from threading import Thread

import pytest

from tests.api.asking import create
from tests.story.test_receivers import printed
from tests.support import toolchains
from tests.support.cutting import Cutter
from tests.support.listening import eventually

STREAMS = 5
PATIENCE = 60  # seconds, for slow machines
OPENED = re.compile(rb"GET /v1/events/stream\?(\S*ticket=([^&\s]+))")
REFUSED = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
USE = """
setInterval(() => {}, 1000); // unlike a page, Node.js ends while an EventSource waits to reconnect
const { PROJECT, AFTER } = process.env;
follow((event) => console.log(event.seq, event.data.name), { types: "task.*", project_id: PROJECT, after: AFTER });
"""


class Expiring(Cutter):
    """Passes connections on, has each stream end after a second, and takes a ticket only for so many."""

    def __init__(self, port: int, uses: int) -> None:
        super().__init__(port, repeat(1 << 40))
        self.opened = self.refused = 0
        self._uses = uses
        self._seen: dict[bytes, int] = {}

    def _upward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := client.recv(65536):
                if found := OPENED.search(piece):
                    used = self._seen[found[2]] = self._seen.get(found[2], 0) + 1
                    if used > self._uses:
                        self.refused += 1
                        client.sendall(REFUSED)
                        server.shutdown(socket.SHUT_RDWR)
                        return
                    self.opened += 1
                server.sendall(piece.replace(b"/events/stream?", b"/events/stream?seconds=1&"))


@pytest.mark.parametrize("uses", [1, 2])
def test_nothing_is_lost_and_nothing_comes_twice(server, api, tmp_path: Path, uses):
    project = create(api, "projects", name="Followed")
    after = api.get("/v1/events", params={"after": "latest"}).headers["next-after"]
    program = printed("realtime.md", "live.mjs").partition("// Print what happens")[0] + USE
    (tmp_path / "live.mjs").write_text(program)
    way = Expiring(server.port, uses)
    thread = Thread(target=way.run, daemon=True)
    thread.start()
    out = (tmp_path / "out.txt").open("w+")
    environment = {"BASE": way.url, "KEY": server.key, "PROJECT": project["id"], "AFTER": after}
    process = subprocess.Popen(
        [toolchains.node(), "--experimental-eventsource", "live.mjs"],
        cwd=tmp_path,
        env=environment,
        stdout=out,
        stderr=subprocess.DEVNULL,
    )
    try:
        made: list[str] = []
        until = time.monotonic() + PATIENCE
        while way.opened < STREAMS:
            assert time.monotonic() < until and process.poll() is None, Path(out.name).read_text()
            made.append(f"Task {len(made)}")
            create(api, "tasks", name=made[-1], project_id=project["id"])
            time.sleep(0.05)
        eventually(lambda: Path(out.name).read_text().endswith(f"{made[-1]}\n"))
    finally:
        process.kill()
        process.wait()
        out.close()
        way.close()
    told = [line.split(" ", 1)[1] for line in Path(out.name).read_text().splitlines()]
    assert told == made
    assert way.refused >= 1, "a ticket was refused, or this shows nothing"
