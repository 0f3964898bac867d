"""A process that draws and prints: figures and pages come in over a socket, files go out, made by one Chromium.

It is run as a script, so that a Chromium that hangs or dies takes nothing of the app with it; it ends when its socket is
closed. The parent uses the two functions of this file and imports nothing else of it.
"""

import asyncio
import base64
import json
import os
import socket
import struct
import sys
from typing import Any

__all__ = ["receive", "send"]

_LENGTH = struct.Struct(">Q")
_LARGEST = 256 << 20
_NOWHERE = "127.0.0.1:9"  # as a proxy: the page that draws reaches no network

# kaleido prints a PDF with margins of a tenth of an inch on a page as large as the picture, which cuts it at two sides.
_WHOLE = "<style>@page { margin: 0 } img { display: block }</style>"


def send(channel: socket.socket, content: bytes) -> None:
    """Send one message. Raises OSError if the other side is gone, TimeoutError by the timeout of the socket."""
    channel.sendall(_LENGTH.pack(len(content)) + content)


def receive(channel: socket.socket) -> bytes | None:
    """The next message; None once the other side is gone. Raises TimeoutError by the timeout of the socket."""
    head = _exactly(channel, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    return None if length > _LARGEST else _exactly(channel, length)


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = channel.recv(min(count - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


async def _serve(channel: socket.socket, chromium: str) -> None:
    """Answer ``{"fig": ..., "opts": ...}`` with ``+`` and the picture, ``{"page": ADDRESS}`` with ``+`` and the page as
    PDF; what cannot be done with ``-`` and the reason."""
    import kaleido

    page = kaleido.PageGenerator(mathjax=False)
    page.header += _WHOLE
    async with kaleido.Kaleido(n=1, timeout=20, page_generator=page, path=chromium, proxy_server=_NOWHERE) as drawer:
        while (asked := await asyncio.to_thread(receive, channel)) is not None:
            task = json.loads(asked)
            try:
                if "page" in task:
                    answer = b"+" + await _printed(drawer, task["page"])
                else:
                    answer = b"+" + await drawer.calc_fig(task["fig"], opts=task["opts"])
            except Exception as problem:  # whatever plotly.js or Chromium say goes to the one who asked
                answer = b"-" + str(problem).encode(errors="replace")
            send(channel, answer)


async def _printed(browser: Any, address: str) -> bytes:
    """A page as PDF, once it says that all its figures are drawn. Raises RuntimeError with what it says instead."""
    tab = await browser.create_tab(url=address, window=True)  # in a tab behind others nothing would be drawn
    try:
        while (drawn := await _value(tab, "document.documentElement?.dataset.drawn")) is None:
            await asyncio.sleep(0.1)
        if drawn != "all":
            raise RuntimeError(str(drawn))
        options = {"printBackground": True, "preferCSSPageSize": True, "generateDocumentOutline": True}
        answer = await tab.send_command("Page.printToPDF", {**options, "generateTaggedPDF": True})
        return base64.b64decode(answer["result"]["data"])
    finally:
        await tab.close()


async def _value(tab: Any, expression: str) -> Any:
    answer = await tab.send_command("Runtime.evaluate", {"expression": expression})
    return answer.get("result", {}).get("result", {}).get("value")


if __name__ == "__main__":
    os.dup2(2, 1)  # what libraries print is no answer
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]))
