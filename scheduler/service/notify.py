"""Tells systemd how the service is: READY=1, WATCHDOG=1, STOPPING=1. Where nobody listens, nothing happens.

The protocol is one datagram to the socket in `$NOTIFY_SOCKET` (sd_notify(3)).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Supervisor:
    """Who started this process and wants to hear of it."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path

    def ready(self, status: str = "") -> None:
        """The service answers."""
        self._send("READY=1", f"STATUS={status}" if status else "")

    def alive(self) -> None:
        """A cycle has come to its end."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(line for line in lines if line).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(1.0)
                channel.sendto(message, self._address)
        except OSError as error:  # the service is worth more than who watches it
            log.debug("the supervisor does not listen: %s", error)
