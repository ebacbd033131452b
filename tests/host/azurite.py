"""Azurite for tests: in memory, on free ports, gone with the test run."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from waiting import eventually

TESTS = Path(__file__).resolve().parent.parent
PACKAGE = TESTS / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SERVICES = ("blob", "queue", "table")


class AzuriteMissingError(Exception):
    """It has not been installed."""


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Azurite:
    """One storage account with blobs, queues and tables. Use as a context manager."""

    def __init__(self) -> None:
        self.ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until all three services accept connections."""
        node = shutil.which("node")
        if node is None or not PACKAGE.is_file():
            raise AzuriteMissingError("Azurite is not installed: run `npm ci` in tests/")
        command = [node, str(PACKAGE), "--inMemoryPersistence", "--silent", "--disableTelemetry"]
        command.append("--skipApiVersionCheck")
        for service, port in self.ports.items():
            command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for service, port in self.ports.items():
            eventually(lambda port=port: self._accepts(port), f"Azurite's {service} service", 60)

    def _accepts(self, port: int) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Azurite ended with {self._process.returncode}")
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that is not enough."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> "Azurite":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def connection_string(self) -> str:
        """With the endpoints spelled out, since the ports are not the usual ones."""
        parts = ["DefaultEndpointsProtocol=http", f"AccountName={ACCOUNT}", f"AccountKey={KEY}"]
        for service, port in self.ports.items():
            parts.append(f"{service.capitalize()}Endpoint=http://127.0.0.1:{port}/{ACCOUNT}")
        return ";".join(parts) + ";"
