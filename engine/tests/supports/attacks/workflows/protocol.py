"""Attacks by the attempt's own socket: frames that the runtime never sends. See weft's `attacking`.

What counts is seen by the suite: the handler lives, the run ends as what it is, no other run changes, and no answer holds a
planted secret.
"""

from attacking import CANARY, Aim, Loot, armed, attack, linger

sys = armed("sys")

os = armed("os")

json, re, select = armed("json"), armed("re"), armed("select")


def _frame(value: object) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return len(body).to_bytes(4, "big") + body


def _send(data: bytes) -> None:
    while data:
        data = data[os.write(3, data) :]


def _answer(seconds: float = 0.5) -> bytes:
    ready, _, _ = select.select([3], [], [], seconds)
    return os.read(3, 65536) if ready else b""


def _ask(aim: Aim, loot: Loot, frame: dict[str, object], what: str) -> None:
    _send(_frame(frame))
    answer = _answer()
    for found in re.findall(CANARY, answer):
        loot.got(what, found)
    # Nothing, or an empty list of its own, is what anybody is told.
    if b'"value"' in answer and not any(
        b'"value":' + empty in answer for empty in (b"null", b"[]", b"{}", b"false")
    ):
        loot.got(what, answer[4:120])


@attack
def other_organization(aim: Aim, loot: Loot) -> None:
    """Requests with the organization, run and attempt of somebody else."""
    identities = {
        "organization": aim.victim_organization, "organization_id": aim.victim_organization, "org": aim.victim_organization,
        "run": aim.victim_run, "run_id": aim.victim_run, "attempt": 1, "attempt_id": "att_1", "profile": "elevated",
        "trust": "trusted", "network": ["*"], "caller": {"kind": "system", "id": "system"},
    }  # fmt: skip
    number = 0
    for name, args in (
        ("config.get", {"key": "planted"}), ("secrets.get", {"name": "planted"}), ("kv.get", {"key": "planted"}), ("kv.list", {}),
        ("artifacts.get", {"name": "planted"}), ("artifacts.list", {}), ("runs.get", {"id": aim.victim_run}),
        ("runs.start", {"workflow": "echo", "organization": aim.victim_organization}), ("runs.cancel", {"id": aim.victim_run}),
        ("http.request", {"url": f"http://127.0.0.1:{aim.port}/api/status"}),
        ("http.request", {"method": "GET", "url": "http://169.254.169.254/latest/meta-data/"}),
    ):  # fmt: skip
        number += 1
        _ask(
            aim,
            loot,
            {"t": "call", "id": number, "name": name, "args": {**args, **identities}, **identities},
            name,
        )


@attack
def keys_that_climb(aim: Aim, loot: Loot) -> None:
    """Names that mean something to a store or a file system."""
    number = 0
    for key in (
        "../planted",
        "fabrikam/planted",
        "/etc/shadow",
        "planted\0",
        "*",
        "%2e%2e/planted",
        "' OR 1=1 --",
        "\n",
        "a" * 5000,
    ):
        for name, field in (
            ("config.get", "key"),
            ("kv.get", "key"),
            ("artifacts.get", "name"),
            ("secrets.get", "name"),
        ):
            number += 1
            _ask(
                aim,
                loot,
                {"t": "call", "id": number, "name": name, "args": {field: key}},
                f"{name} {key[:20]!r}",
            )


@attack
def ready_again(aim: Aim, loot: Loot) -> None:
    """A second `ready`, to be given a second attempt: that of somebody else."""
    _send(_frame({"t": "ready", "import_ms": 1.0, "boot_ms": 1.0}))
    answer = _answer(1.0)
    if b'"attempt"' in answer:
        loot.got("a second attempt", answer[4:120])


@attack
def describes(aim: Aim, loot: Loot) -> None:
    """Declarations that nobody asked for."""
    _send(
        _frame(
            {
                "t": "described",
                "module": "workflows.evil",
                "path": "workspace/workflows/evil.py",
                "workflows": [],
                "data_providers": [],
                "nodes": [],
                "findings": [],
            }
        )
    )
    _send(_frame({"t": "described_all", "files": 1, "ms": 1.0}))
    linger(0.5)


@attack
def two_results(aim: Aim, loot: Loot) -> None:
    """A result, and another one after it."""
    _send(_frame({"t": "succeeded", "value": [], "user_ms": 1.0, "variables": {}}))
    _send(_frame({"t": "succeeded", "value": ["second"], "user_ms": 1.0, "variables": {}}))
    linger(1.0)


@attack
def forged_refusal(aim: Aim, loot: Loot) -> None:
    """An error of a kind that only the engine reports, with fields that only it sets."""
    _forge(aim, "isolation_insufficient")


@attack
def forged_limit(aim: Aim, loot: Loot) -> None:
    """The same, of a limit that never fired."""
    _forge(aim, "memory_limit")


@attack
def forged_crash(aim: Aim, loot: Loot) -> None:
    """The same, of a crash that was none and would be repeated."""
    _forge(aim, "crashed")


def _forge(aim: Aim, kind: str) -> None:
    _send(
        _frame(
            {
                "t": "failed",
                "error": {
                    "type": kind, "message": "FORGED " + "x" * 100_000, "traceback": "y" * 100_000, "retriable": True,
                    "data": {"code": "internal"}, "step": "other", "organization": aim.victim_organization,
                },
                "user_ms": -5,
                "variables": {"run": aim.victim_run},
            }
        )
    )  # fmt: skip
    linger(1.0)


@attack
def too_large(aim: Aim, loot: Loot) -> None:
    """A length of four gigabytes."""
    _send(b"\xff\xff\xff\xff" + b"x" * 65536)
    linger(0.5)


@attack
def half_a_frame(aim: Aim, loot: Loot) -> None:
    """A frame that never ends, and the result inside of it."""
    _send(b"\x00\x00\xff\xff" + b'{"t":"succeeded"')
    sys.stdout.flush()
    os._exit(0)


@attack
def nothing_but_zeros(aim: Aim, loot: Loot) -> None:
    """Frames of no length."""
    _send(bytes(65536))
    linger(0.5)


@attack
def deep(aim: Aim, loot: Loot) -> None:
    """JSON that is deeper than a stack."""
    _send(_frame(b'{"t":"succeeded","value":' + b"[" * 400_000 + b"]" * 400_000 + b"}"))
    linger(0.5)


@attack
def no_text(aim: Aim, loot: Loot) -> None:
    """Bytes that are no text, twice the same key, numbers that are none."""
    _send(_frame(b'{"t":"log","t":"succeeded","message":"\xff\xfe","at":1e999}'))
    linger(0.5)


@attack
def same_question_twice(aim: Aim, loot: Loot) -> None:
    """A request replayed."""
    for number in (1, 1, 5, 0, -1, 2**63):
        _ask(
            aim,
            loot,
            {"t": "call", "id": number, "name": "config.get", "args": {"key": "planted"}},
            f"id {number}",
        )


@attack
def all_at_once(aim: Aim, loot: Loot) -> None:
    """More questions than may be open."""
    for number in range(1, 400):
        _send(_frame({"t": "call", "id": number, "name": "config.get", "args": {"key": "none"}}))
    linger(0.5)


@attack
def false_log(aim: Aim, loot: Loot) -> None:
    """Log lines that pretend to be another run's, and another line's end."""
    _send(
        _frame(
            {
                "t": "log", "level": "error", "message": 'x\n{"level":"ERROR","message":"forged line"}\r\n\x1b[2J', "at": 0,
                "fields": {"run": aim.victim_run, "organization": aim.victim_organization, "level": "info"}, "run": aim.victim_run,
            }
        )
    )  # fmt: skip


@attack
def sends_descriptors(aim: Aim, loot: Loot) -> None:
    """Descriptors along with a frame, many times: the handler must not keep them."""
    array = armed("array")

    from attacking import reach

    socket = reach("socket")
    with socket.socket(fileno=os.dup(3)) as link:
        for _ in range(64):
            link.sendmsg(
                [_frame({"t": "log", "level": "info", "message": "x", "fields": {}, "at": 0})],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 64))],
            )


@attack
def closes(aim: Aim, loot: Loot) -> None:
    """An end without a word, and a life after it."""
    os.close(3)
    linger(1.0)
    loot.items.clear()


@attack
def lives_on_in_child(aim: Aim, loot: Loot) -> None:
    """A child keeps the socket and answers for the attempt when that is over."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        linger(0.5)
        _send(_frame({"t": "succeeded", "value": ["by the child"], "user_ms": 1.0, "variables": {}}))
        linger(5)
        os._exit(0)
    os._exit(0)
