"""WebSocket by the websockets package: `serve PORT`, or `ask HOST:PORT`, which prints a line for each case that held."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MESSAGE_BYTES_MAX = 4 << 20
CASE_SECONDS_MAX = 20


async def echo(socket):
    async for message in socket:
        match message:
            case "close":
                return await socket.close(4001, "as asked")
            case "fail":
                raise RuntimeError("as asked")
            case "abort":
                return socket.transport.abort()
            case "ping":
                await (await socket.ping())
        await socket.send(message)


async def texts(socket):
    for i in range(200):
        await said(socket, f"plaintext-marker-7f3a é {i}")


async def lengths(socket):
    for length in (0, 1, 125, 126, 65_535, 65_536, 1 << 20):
        await said(socket, os.urandom(length))


async def fragments(socket):
    await socket.send(iter(["a", "b", "c" * 70_000]))
    assert await socket.recv() == "ab" + "c" * 70_000


async def pings(socket):
    await (await socket.ping())
    await said(socket, "ping")


async def pipelined(socket):
    for i in range(500):
        await socket.send(f"{i:01000}")
    for i in range(500):
        assert await socket.recv() == f"{i:01000}"


async def closed_by_client(socket):
    await socket.close(4002, "mine")
    assert socket.close_code == 4002, socket.close_code


def ended(word, code):
    async def case(socket):
        await socket.send(word)
        try:
            await socket.recv()
        except ConnectionClosed:
            assert socket.close_code == code, socket.close_code
        else:
            raise AssertionError("not closed")

    case.__name__ = f"{word}_{code}"
    return case


async def said(socket, message):
    await socket.send(message)
    assert await socket.recv() == message


async def ask(uri, compression):
    def dial():
        return connect(uri, compression=compression, max_size=MESSAGE_BYTES_MAX)

    async def held(case):
        async with dial() as socket:
            await asyncio.wait_for(case(socket), CASE_SECONDS_MAX)
        print("held", case.__name__, compression)

    ends = [ended("close", 4001), ended("fail", 1011), ended("abort", 1006)]
    for case in [texts, lengths, fragments, pings, pipelined, closed_by_client, *ends]:
        await held(case)
    await asyncio.gather(*(held(pings) for _ in range(100)))


async def main(verb, where):
    if verb == "serve":
        async with serve(echo, "0.0.0.0", int(where), max_size=MESSAGE_BYTES_MAX):
            await asyncio.get_running_loop().create_future()
    for compression in ("deflate", None):
        await ask(f"ws://{where}/echo", compression)


asyncio.run(main(*sys.argv[1:]))
