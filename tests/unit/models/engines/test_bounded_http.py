"""A connection is kept for a moment only, so that no call goes out on one that its server is just closing (MB-4)."""

from __future__ import annotations

import asyncio

import pytest

from fleet.models.engine_config import HttpEngine
from fleet.models.engines.server_model import bounded_client

ENGINE = HttpEngine(engine_id="mine", kind="openai", model="m", base_url="http://h/v1", unpriced=True)
CLOSES_AFTER_S = 5.0
"""What llama.cpp's server and uvicorn, which stands before vLLM and Ray Serve, do with an idle connection."""


@pytest.mark.rule("MB-4")
async def test_idle_connection_is_given_up_well_before_its_server_closes_it():
    opened: list[asyncio.Task[None] | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(asyncio.current_task())
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, bounded_client(ENGINE) as client:
        for _ in range(3):
            assert (await client.get(address)).text == "ok"
        assert len(opened) == 1
        await asyncio.sleep(CLOSES_AFTER_S / 2)
        assert (await client.get(address)).text == "ok"
        assert len(opened) == 2
    await asyncio.gather(*(task for task in opened if task))
