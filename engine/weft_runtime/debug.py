"""A debugger for one attempt: debugpy on a socket that came with the fork, so that it needs no network.

The other end of the socket is the handler's, which carries what a debugger's client says there. Imported in
workers that are debugged only. Development only; the handler sees to that.
"""

from __future__ import annotations

import os
import socket
import sys
from importlib import import_module
from typing import Any


def wait_for_client(fd: int, root: str) -> None:
    """Let a client take over, and return when it has set its breakpoints.

    root: the folder of the workspace as the developer knows it; code says that it is from there, and it need
    not be visible here. Raises ImportError where debugpy is not installed.
    """
    # Nobody here chooses how Python was started, and files are where the editor has them.
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    # What counts as the developer's own code; the engine's frames are none of it.
    os.environ["IDE_PROJECT_ROOTS"] = root
    debugpy: Any = import_module("debugpy")
    # Its own server starts an adapter beside the step, which would need the network.
    import_module("debugpy.server.api")
    pydevd: Any = sys.modules["pydevd"]
    file_utils: Any = sys.modules["pydevd_file_utils"]
    connection = socket.socket(fileno=fd)
    pydevd.start_client = lambda *_: connection
    is_there = file_utils.exists
    below = root.rstrip("/") + "/"
    file_utils.exists = lambda path: path.startswith(below) or is_there(path)
    # Processes that the step starts would be told to connect somewhere.
    debugpy.configure(subProcess=False)
    debugpy.connect(("127.0.0.1", 1))
    debugpy.wait_for_client()


def say_goodbye() -> None:
    """Let what the client is still owed be sent; this process is about to end without a word."""
    debugger: Any = sys.modules["pydevd"].get_global_debugger()
    if debugger is not None:
        debugger.dispose_and_kill_all_pydevd_threads(wait=True, timeout=0.5)
