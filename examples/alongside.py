"""wsev beside other asyncio services: one loop, one process, one port.

    pip install wsev[asgi] fastapi
    python examples/alongside.py [--port 8000] [--host 127.0.0.1]

A FastAPI application answers plain HTTP, wsev the WebSockets of the same port. A background task publishes the time
every second; a queue consumer publishes what is posted over HTTP. Open the page, then see /docs, or

    curl -X POST "http://127.0.0.1:8000/say?text=hello"
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from datetime import datetime

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

import wsev

app = FastAPI()
posted: asyncio.Queue[str] = asyncio.Queue(maxsize=1000)  # from HTTP to the consumer

web = wsev.asgi(app)
server: wsev.Server[None] = wsev.Server(http=web, lifespan=web.lifespan)  # what is no WebSocket goes to FastAPI


@server.on_connect
def connected(conn: wsev.Connection[None]) -> None:
    conn.subscribe("time")
    conn.subscribe("said")


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


@app.get("/connections")
async def connections() -> dict[str, int]:
    return {"connections": len(server.connections)}  # the same loop, so nothing to lock


@app.post("/say", status_code=202)
async def say(text: str) -> None:
    await posted.put(text)


async def tick() -> None:
    while True:
        server.publish("time", f"It is {datetime.now():%H:%M:%S}")
        await asyncio.sleep(1)


async def consume() -> None:
    while True:
        text = await posted.get()
        server.publish("said", f"Somebody says: {text}")


PAGE = """<!doctype html>
<title>wsev alongside FastAPI</title>
<p id="time">…</p>
<ul id="said"></ul>
<script>
const socket = new WebSocket(location.href.replace("http", "ws"));
socket.onmessage = ({ data }) => {
  if (data.startsWith("It is")) document.getElementById("time").textContent = data;
  else document.getElementById("said").appendChild(document.createElement("li")).textContent = data;
};
</script>
"""


async def main(port: int, host: str) -> None:
    async with server.listen(port, host=host), asyncio.TaskGroup() as tasks:
        tasks.create_task(tick())
        tasks.create_task(consume())
        print(f"FastAPI and wsev: http://{host}:{server.port}/ (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="wsev and FastAPI in one loop, on one port.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.port, args.host))
