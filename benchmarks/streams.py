"""Streams: what a thousand idle ones cost, how soon a change is received, and readers that come back at random.

Why all streams get every change in the second part: the slowest of a thousand is what a user may be.
"""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks import machine
from benchmarks.client import Client
from benchmarks.compare import say
from benchmarks.peers import Taskade

STREAMS = 1000
KEYS = 10
IDLE_SECONDS = 20.0
CHANGES = 40
EVENTS = 10_000
READERS = 8
BULK = 50


class Stream:
    """One client of the stream, reduced to what has to be known: the seqs, and when each came."""

    def __init__(self, port: int, headers: dict[str, str], place: str = "") -> None:
        self._port = port
        self._headers = {**headers, **({"Last-Event-ID": place} if place else {})}
        self.seqs: list[int] = []
        self.times: list[float] = []
        self.last = place
        self.ready = asyncio.Event()

    async def run(self, most: int | None = None, seconds: float | None = None) -> None:
        """Read until so many events came, or so long nothing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        head = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        writer.write(f"GET /v1/events/stream HTTP/1.0\r\nHost: x\r\n{head}\r\n".encode())
        kind = ""
        try:
            while most is None or len(self.seqs) < most:
                async with asyncio.timeout(seconds):
                    line = await reader.readline()
                if not line:
                    return
                if line.startswith(b"id: "):
                    place = line[4:].strip().decode()
                elif line.startswith(b"event: "):
                    kind = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    self.last = place
                    if kind == "ready":
                        self.ready.set()
                    else:
                        self.seqs.append(int(place))
                        self.times.append(time.perf_counter())
        except TimeoutError:
            return
        finally:
            writer.close()


def run(folder: Path) -> str:
    """Measure; the report as text."""
    server = Taskade(folder)
    server.start()
    try:
        return asyncio.run(_measure(server))
    finally:
        server.stop()


def _more_keys(server: Taskade) -> list[dict[str, str]]:
    command = [sys.executable, "-m", "taskade_server", "keys", "create", "--name", "bench", *server.database()]
    made = [
        subprocess.run(command, cwd=server.folder, check=True, capture_output=True, text=True).stdout.strip()
        for _ in range(KEYS)
    ]
    return [{"Authorization": f"Bearer {key}"} for key in made]


async def _measure(server: Taskade) -> str:
    keys = _more_keys(server)
    client = Client(server.port, server.headers)
    project = client.call("POST", "/v1/projects", {"name": "Streams"})["id"]
    before = machine.memory(server.pid) or 0
    say(f"Opening {STREAMS:,} streams")
    streams = [Stream(server.port, keys[number % KEYS]) for number in range(STREAMS)]
    running = [asyncio.create_task(stream.run()) for stream in streams]
    await asyncio.gather(*(stream.ready.wait() for stream in streams))
    await asyncio.sleep(3)
    after, cpu = machine.memory(server.pid) or 0, machine.cpu_seconds(server.pid)
    await asyncio.sleep(IDLE_SECONDS)
    busy = (machine.cpu_seconds(server.pid) - cpu) / IDLE_SECONDS
    say(f"Changing {CHANGES} things")
    client = Client(server.port, server.headers)  # the server has closed the idle one
    first, last = [], []
    for number in range(CHANGES):
        sent = time.perf_counter()
        body = {"name": f"Change {number}", "project_id": project}
        await asyncio.to_thread(client.call, "POST", "/v1/tasks", body)
        while any(len(stream.seqs) <= number for stream in streams):
            await asyncio.sleep(0.005)
        came = [stream.times[number] - sent for stream in streams]
        first.append(min(came) * 1000)
        last.append(max(came) * 1000)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    lost, doubled, breaks = await _breaks(server, client, project)
    return "\n".join(
        [
            f"{STREAMS:,} idle streams: {(after - before) / 1e6:.1f} MB,"
            f" {(after - before) / STREAMS / 1e3:.1f} kB each,"
            f" {busy * 100:.1f} % of a core",
            f"from sending a change to its receipt, {CHANGES} changes to {STREAMS:,} streams:"
            f" the first p50 {median(first):.1f} ms, the last p50 {median(last):.1f} ms, max {max(last):.1f} ms",
            f"{EVENTS:,} events to {READERS} readers that broke off {breaks} times: {lost} lost, {doubled} twice",
        ]
    )


async def _breaks(server: Taskade, client: Client, project: str) -> tuple[int, int, int]:
    """Readers hang up at random while events are written, and come back with the last id that they got."""
    say(f"Writing {EVENTS:,} events while readers break off")
    probe = Stream(server.port, server.headers)
    task = asyncio.create_task(probe.run())
    await probe.ready.wait()
    start = int(probe.last)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    over = asyncio.Event()
    readers = [asyncio.create_task(_restless(server, str(start), over, seed)) for seed in range(READERS)]
    body: dict[str, Any] = {"tasks": [{"name": f"Task {n}"} for n in range(BULK)], "project_id": project}
    text = msgspec.json.encode(body)
    for _ in range(EVENTS // BULK):
        await asyncio.to_thread(client.raw, "POST", "/v1/tasks/bulk", text)
    over.set()
    found = await asyncio.gather(*readers)
    wanted = set(range(start + 1, start + EVENTS + 1))
    lost = sum(len(wanted - set(seqs)) for seqs, _ in found)
    doubled = sum(len(seqs) - len(set(seqs)) for seqs, _ in found)
    return lost, doubled, sum(count for _, count in found)


async def _restless(server: Taskade, place: str, over: asyncio.Event, seed: int) -> tuple[list[int], int]:
    chance, seqs, breaks = random.Random(seed), list[int](), 0
    while True:
        last = over.is_set()
        stream = Stream(server.port, server.headers, place)
        await stream.run(None if last else chance.randrange(1, 400), seconds=2.0)
        seqs += stream.seqs
        place = stream.last
        if last:
            return seqs, breaks
        breaks += 1
