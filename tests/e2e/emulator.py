"""Azurite as a service that can be stopped cleanly and started again with its data, on the same ports."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

from weft import REPOSITORY, free_port, until

PACKAGE = REPOSITORY / "tests" / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SERVICES = ("blob", "queue", "table")


class Emulator:
    """One storage account."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {service: free_port() for service in SERVICES}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until all services accept connections."""
        node = shutil.which("node")
        assert node, "Node.js is missing"
        assert PACKAGE.is_file(), "Azurite is not installed: run `npm ci --prefix tests`"
        command = [node, str(PACKAGE), "--location", str(self.folder), "--silent", "--disableTelemetry"]
        command.append("--skipApiVersionCheck")
        for service, port in self.ports.items():
            command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for service, port in self.ports.items():
            until(lambda port=port: self._accepts(port), f"Azurite's {service} service", 60)  # type: ignore[misc]

    def _accepts(self, port: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"Azurite ended with {self.process.returncode}"
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    def stop(self) -> None:
        """By SIGTERM, for a kill would cost it its last writes."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    @property
    def environment(self) -> dict[str, str]:
        """What leads Weft to it."""
        parts = ["DefaultEndpointsProtocol=http", f"AccountName={ACCOUNT}", f"AccountKey={KEY}"]
        parts += [
            f"{name.capitalize()}Endpoint=http://127.0.0.1:{port}/{ACCOUNT}"
            for name, port in self.ports.items()
        ]
        return {"WEFT_STORE": "azure", "AzureWebJobsStorage": ";".join(parts) + ";"}
