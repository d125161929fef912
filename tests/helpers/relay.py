"""A relay between a browser and one server after another, at one address, as if a server stopped and another came."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Relay:
    """Passes bytes on to the server of an address; breaks off and refuses everything while there is none."""

    def __init__(self) -> None:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self._port: int = place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"

    @contextlib.contextmanager
    def to(self, url: str) -> Iterator[None]:
        """The server of `url` is there until the end."""
        target = urlsplit(url).hostname, urlsplit(url).port
        connected: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", self._port)) as listener:
            threading.Thread(target=self._accept, args=(listener, target, connected), daemon=True).start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                for line in connected:
                    with contextlib.suppress(OSError):
                        line.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket, target: tuple[str, int], connected: list[socket.socket]) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                browser, _ = listener.accept()
                server = socket.create_connection(target)
                connected += [browser, server]
                for source, sink in ((browser, server), (server, browser)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
