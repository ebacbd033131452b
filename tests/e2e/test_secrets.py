"""Keys and tokens are never in a log, an answer, an output or the stored data."""

import base64
import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from weft import KEY, OWN_FILES, OWN_PROCESSES, Weft, copy_workspace, send, weft

LOUD = {"WEFT_LOG": "trace", "WEFT_LOG_FORMAT": "json"}
BAD = "weft_bad-key-of-a-caller-0123456789abcdef"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzb21lYm9keSJ9.c2lnbmF0dXJlLW9mLW5vYm9keQ"
SIGNING = "signing-key-of-a-test-that-nobody-may-see"


def forms(secret: str) -> list[bytes]:
    """A secret as it may appear."""
    raw = secret.encode()
    return [
        raw,
        base64.b64encode(raw).rstrip(b"=")[:-1],
        base64.urlsafe_b64encode(raw).rstrip(b"=")[:-1],
        raw.hex().encode(),
        urllib.parse.quote(secret, safe="").encode(),
    ]


def stored(one: Weft) -> bytes:
    """Every byte below the data folder."""
    return b"".join(path.read_bytes() for path in sorted(one.data.rglob("*")) if path.is_file())


def test_nothing_shows_a_key(make: Any, tmp_path: Path) -> None:
    one = make(
        environment={**LOUD, "WEFT_SIGNING_KEY": SIGNING}, workspace=copy_workspace(tmp_path / "workspace")
    ).start()
    created = weft("keys", "create", "robot", "--scope", "*", "--json", "--data", one.data).json
    good = created["key"]
    expired = weft("keys", "create", "gone", "--scope", "*", "--json", "--data", one.data).json
    assert weft("keys", "revoke", expired["id"], "--data", one.data).status == 0
    answers: list[bytes] = []

    def ask(method: str, target: str, headers: dict[str, str], body: Any = None) -> int:
        answer = send(
            one.url, method, f"/api{target}", headers={"X-Organization-Id": "contoso", **headers}, body=body
        )
        answers.append(answer.body + str(answer.headers).encode())
        return answer.status

    for key, status in ((good, 200), (BAD, 401), (expired["key"], 401)):
        quoted = urllib.parse.quote(key, safe="")
        assert ask("POST", "/workflows/surroundings/execute", {"x-functions-key": key}, {}) == status
        assert ask("POST", f"/workflows/surroundings/execute?code={quoted}", {}, {}) == status
        assert ask("GET", f"/runs?code={quoted}&limit=1", {}) == status
        # Mistakes with a key in them.
        assert ask("GET", f"/runs?code={quoted}&limit=0", {}) in (400, 401)
        assert ask("GET", f"/runs?limit={quoted}&code={quoted}", {}) in (400, 401)
        assert ask("GET", f"/no-such?code={quoted}", {}) == 404
        assert ask("GET", f"/workflows/no-such?code={quoted}", {}) in (404, 401)
        assert ask("POST", f"/workflows/echo/execute?code={quoted}", {}, b"{") in (400, 401)
        assert ask("GET", f"/runs?code={quoted}&code={quoted}", {}) == 401
        assert ask("GET", f"/runs?code={quoted}", {"x-functions-key": "another"}) == 401
        assert ask("GET", "/runs", {"x-functions-key": key, "X-Organization-Id": "nobody"}) in (404, 401)
        assert ask("GET", "/openapi.json", {"x-functions-key": key}) == 200
    for token in (TOKEN,):
        assert ask("GET", "/runs", {"Authorization": f"Bearer {token}"}) == 403
        assert ask("GET", "/runs", {"X-MS-CLIENT-PRINCIPAL": token}) == 401
        assert ask("GET", "/runs", {"x-functions-key": good, "Authorization": f"Bearer {token}"}) == 200
        assert ask("GET", "/runs", {"Cookie": f"session={token}"}) == 403
    ask("GET", "/audit?limit=200", {"x-functions-key": good})
    ask("GET", "/status", {"x-functions-key": good})
    assert b'"key.bypass"' in answers[-2]
    assert one.stop() == 0
    texts = {
        "said": one.said().encode(),
        "answers": b"".join(answers),
        "stored": stored(one),
        "listed": weft("keys", "list", "--data", one.data).stdout.encode(),
        "listed as JSON": weft("keys", "list", "--json", "--data", one.data).stdout.encode(),
        "explained": json.dumps(
            weft("config", "show", environment={"WEFT_SIGNING_KEY": SIGNING, "WEFT_DATA": str(one.data)}).json
        ).encode(),
    }
    assert len(texts["said"]) > 10_000
    assert len(texts["stored"]) > 10_000
    for secret in (good, expired["key"], BAD, TOKEN, SIGNING):
        for form in forms(secret):
            for where, text in texts.items():
                at = text.find(form)
                assert at < 0, f"{form!r} in {where}: {text[max(0, at - 200) : at + 200]!r}"
    # The development key is printed once, in the line that a developer copies; it opens nothing elsewhere.
    assert one.stdout.read_text().count(KEY) == 1
    assert KEY.encode() not in texts["stored"] + texts["answers"] + one.stderr.read_bytes()


@pytest.mark.parametrize("off", ["", f"{OWN_FILES},{OWN_PROCESSES}"], ids=["jailed", "unjailed"])
def test_a_step_sees_no_key_and_no_setting(make: Any, tmp_path: Path, off: str) -> None:
    workspace = copy_workspace(tmp_path / "workspace")
    (workspace / "workflows" / "looks.py").write_text(
        "import glob, os\nfrom weft import Context, workflow\n\n\n@workflow\n"
        "def looks(ctx: Context) -> dict[str, str]:\n"
        "    found = {}\n"
        "    for path in ('/proc/self/environ', '/proc/self/cmdline', *glob.glob('/proc/[0-9]*/environ')):\n"
        "        try:\n            found[path] = open(path, errors='replace').read()\n"
        "        except OSError as error:\n            found[path] = str(error)\n"
        "    found['os'] = repr(dict(os.environ))\n"
        "    return found\n"
    )
    one = make(
        workspace=workspace, environment={"WEFT_SIGNING_KEY": SIGNING, "WEFT_ISOLATION_OFF": off}
    ).start()
    run = one.run("looks")
    assert run["status"] == "succeeded", run
    assert SIGNING not in json.dumps(run)
    assert KEY not in json.dumps(run["result"])
    assert not re.search(r"WEFT_\w+", json.dumps(run["result"])), run["result"]


def test_errors_at_the_start_name_no_secret(make: Any) -> None:
    secret = "c2VjcmV0LW9mLWEtc3RvcmFnZS1hY2NvdW50LWtleQ=="
    for text in (
        f"AccountName=weft;AccountKey={secret}",
        f"DefaultEndpointsProtocol=gopher;AccountName=weft;AccountKey={secret};EndpointSuffix=x",
        f"AccountName=weft;AccountKey={secret};TableEndpoint=http://127.0.0.1:1/weft;"
        "BlobEndpoint=http://127.0.0.1:1/weft;QueueEndpoint=http://127.0.0.1:1/weft",
    ):
        done = weft(
            "doctor", "--json", environment={"AzureWebJobsStorage": text, "WEFT_STORE": "azure", **LOUD}
        )
        assert done.status == 1
        assert secret not in done.stdout + done.stderr
        explained = weft("config", "show", environment={"AzureWebJobsStorage": text, "WEFT_STORE": "azure"})
        assert secret not in explained.stdout + explained.stderr
