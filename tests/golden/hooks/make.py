"""Makes vectors.json with nothing but Python's own `hmac`, `hashlib` and `base64`: run it and compare.

    python3 tests/golden/hooks/make.py > tests/golden/hooks/vectors.json

A case is a hook, what it is sent, when, and what must come of it: `ok` with the delivery's identity, or the reason why it is
refused. The formulas are written out per sender, as each sender's own documentation has them, and not shared.
"""

import base64
import hashlib
import hmac
import json

AT = 1_790_000_000
SECRET = "it-was-a-dark-and-stormy-night"
OTHER = "it-was-a-bright-and-quiet-noon"
WHSEC = "whsec_" + base64.b64encode(bytes(range(24))).decode()
BODY = b'{"id":"evt_1","event_id":"Ev1","name":"Ada","umlaut":"\xc3\xa4","spaces" :  1}'


def digest(secret: str, message: bytes) -> bytes:
    return hmac.new(secret.encode(), message, hashlib.sha256).digest()


def weft(secret: str = SECRET, at: int = AT, body: bytes = BODY) -> str:
    return f"t={at},v1={digest(secret, str(at).encode() + b'.' + body).hex()}"


def github(secret: str = SECRET, body: bytes = BODY) -> str:
    return "sha256=" + digest(secret, body).hex()


def slack(secret: str = SECRET, at: int = AT, body: bytes = BODY) -> str:
    return "v0=" + digest(secret, b"v0:" + str(at).encode() + b":" + body).hex()


def svix(secret: str = WHSEC, ident: str = "msg_1", at: int = AT, body: bytes = BODY) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message = f"{ident}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()


def generic(secret: str = SECRET, body: bytes = BODY) -> bytes:
    return digest(secret, body)


SHA = hashlib.sha256(BODY).hexdigest()


def timed(body: bytes) -> str:
    return f"at:{AT}:{hashlib.sha256(body).hexdigest()}"


def capitals(header: str) -> str:
    time, signature = header.split(",v1=")
    return f"{time},v1={signature.upper()}"


cases: list[dict] = []


def case(name, scheme, headers, outcome, *, body=BODY, secrets=(SECRET,), now=AT, identity=None, by="delivery"):
    cases.append(
        {
            "name": name,
            "scheme": scheme,
            "secrets": list(secrets),
            "by": by,
            "now": now,
            "headers": [list(header) for header in headers],
            "body": base64.b64encode(body).decode(),
            "outcome": outcome,
            "identity": identity,
        }
    )


W, G, S, L, V = ({"kind": kind} for kind in ("weft", "github", "stripe", "slack", "svix"))
HEX = {"kind": "generic", "header": "x-sign", "encoding": "hex", "prefix": "", "deliveryHeader": "x-id"}
B64 = {"kind": "generic", "header": "x-sign", "encoding": "base64", "prefix": "hmac "}
wh, gh, sh, lh, vh = "x-weft-signature", "x-hub-signature-256", "stripe-signature", "x-slack-signature", "webhook-signature"

# weft
case("weft", W, [(wh, weft())], "ok", identity=timed(BODY))
case("weft with an id", W, [(wh, weft()), ("x-weft-delivery", "d-1")], "ok", identity="id:d-1")
case("weft by body", W, [(wh, weft()), ("x-weft-delivery", "d-1")], "ok", identity=f"body:{SHA}", by="body")
case("weft in capitals", W, [(wh, capitals(weft()))], "ok", identity=timed(BODY))
case("weft at the edge", W, [(wh, weft())], "ok", now=AT + 300, identity=timed(BODY))
case("weft ahead at the edge", W, [(wh, weft())], "ok", now=AT - 300, identity=timed(BODY))
case("weft too old", W, [(wh, weft())], "stale", now=AT + 301)
case("weft too far ahead", W, [(wh, weft())], "stale", now=AT - 301)
case("weft with the old secret", W, [(wh, weft(OTHER))], "ok", secrets=(SECRET, OTHER), identity=timed(BODY))
case("weft with a wrong secret", W, [(wh, weft(OTHER))], "mismatch")
case("weft without secrets", W, [(wh, weft())], "mismatch", secrets=())
case("weft, other body", W, [(wh, weft())], "mismatch", body=BODY + b" ")
case("weft, other time", W, [(wh, weft().replace(str(AT), str(AT + 1)))], "mismatch")
case("weft, no time", W, [(wh, weft().split(",")[1])], "malformed")
case("weft, two times", W, [(wh, f"t={AT - 1}," + weft())], "malformed")
case("weft, a time that is none", W, [(wh, weft().replace(str(AT), "soon"))], "malformed")
case("weft, a negative time", W, [(wh, weft().replace(str(AT), "-1"))], "malformed")
case("weft, no signature in the header", W, [(wh, f"t={AT}")], "malformed")
case("weft, another version only", W, [(wh, weft().replace("v1=", "v0="))], "malformed")
case("weft, cut short", W, [(wh, weft()[:-2])], "mismatch")
case("weft, an odd digit", W, [(wh, weft()[:-1])], "malformed")
case("weft, empty", W, [(wh, "")], "malformed")
case("weft, the header twice", W, [(wh, weft()), (wh, weft())], "malformed")
case("weft, the id twice", W, [(wh, weft()), ("x-weft-delivery", "a"), ("x-weft-delivery", "b")], "malformed")
case("weft, an empty id", W, [(wh, weft()), ("x-weft-delivery", "")], "malformed")
case("weft, unsigned", W, [], "unsigned")
case("weft, signed as GitHub does", W, [(gh, github())], "unsigned")
case("weft, empty body", W, [(wh, weft(body=b""))], "ok", body=b"", identity=timed(b""))
case("weft, bytes that are no text", W, [(wh, weft(body=b"\xff\x00"))], "ok", body=b"\xff\x00", identity=timed(b"\xff\x00"))
# The message of `t.body` with t=1 and a body that begins with digits must not be that of another time.
case("weft, the seam moved", W, [(wh, weft(body=b"5.x").replace(f"t={AT}", f"t={AT}.5"))], "malformed", body=b"x")

# github
case("github", G, [(gh, github()), ("x-github-delivery", "guid-1")], "ok", identity="id:guid-1")
case("github years later", G, [(gh, github()), ("x-github-delivery", "guid-1")], "ok", now=AT + 10**8, identity="id:guid-1")
case("github without an id", G, [(gh, github())], "ok", identity=f"body:{SHA}")
case("github with a wrong secret", G, [(gh, github(OTHER))], "mismatch")
case("github, other body", G, [(gh, github())], "mismatch", body=BODY[:-1])
case("github without its prefix", G, [(gh, github()[7:])], "malformed")
case("github with SHA-1 only", G, [("x-hub-signature", "sha1=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest())], "unsigned")
case("github with SHA-1 in the header of the other", G, [(gh, "sha256=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest())], "mismatch")

# stripe
case("stripe", S, [(sh, weft())], "ok", identity="id:evt_1")
case("stripe with several signatures", S, [(sh, f"t={AT},v1={'0' * 64},v0={'1' * 64}," + weft().split(",")[1])], "ok", identity="id:evt_1")
case("stripe, the eleventh signature", S, [(sh, f"t={AT}," + f"v1={'0' * 64}," * 10 + weft().split(",")[1])], "mismatch")
case("stripe, replayed", S, [(sh, weft())], "stale", now=AT + 3600)
case("stripe without an id", S, [(sh, weft(body=b'{"id":7}'))], "ok", body=b'{"id":7}', identity=timed(b'{"id":7}'))

# slack
lt = ("x-slack-request-timestamp", str(AT))
case("slack", L, [(lh, slack()), lt], "ok", identity="id:Ev1")
case("slack, a form", L, [(lh, slack(body=b"a=1&b=2")), lt], "ok", body=b"a=1&b=2", identity=timed(b"a=1&b=2"))
case("slack without a time", L, [(lh, slack())], "malformed")
case("slack with two times", L, [(lh, slack()), lt, lt], "malformed")
case("slack, another time", L, [(lh, slack()), ("x-slack-request-timestamp", str(AT + 1))], "mismatch")
case("slack, replayed", L, [(lh, slack()), lt], "stale", now=AT + 301)
case("slack with a wrong secret", L, [(lh, slack(OTHER)), lt], "mismatch")

# svix and standard webhooks
vs = [("webhook-id", "msg_1"), ("webhook-timestamp", str(AT))]
case("svix", V, [(vh, svix()), *vs], "ok", secrets=(WHSEC,), identity="id:msg_1")
case("svix, its own headers", V, [("svix-signature", svix()), ("svix-id", "msg_1"), ("svix-timestamp", str(AT))], "ok", secrets=(WHSEC,), identity="id:msg_1")
case("svix, the secret without its prefix", V, [(vh, svix()), *vs], "ok", secrets=(WHSEC[6:],), identity="id:msg_1")
case("svix without padding", V, [(vh, svix().rstrip("=")), *vs], "ok", secrets=(WHSEC,), identity="id:msg_1")
case("svix with several", V, [(vh, "v1,AAAA v1a,BBBB " + svix()), *vs], "ok", secrets=(WHSEC,), identity="id:msg_1")
case("svix, another id", V, [(vh, svix()), ("webhook-id", "msg_2"), vs[1]], "mismatch", secrets=(WHSEC,))
case("svix without an id", V, [(vh, svix()), vs[1]], "malformed", secrets=(WHSEC,))
case("svix without a time", V, [(vh, svix()), vs[0]], "malformed", secrets=(WHSEC,))
case("svix, replayed", V, [(vh, svix()), *vs], "stale", secrets=(WHSEC,), now=AT + 301)
case("svix with a secret that is no base 64", V, [(vh, svix()), *vs], "mismatch", secrets=("whsec_!",))

# generic
case("generic in hex", HEX, [("x-sign", generic().hex()), ("x-id", "7")], "ok", identity="id:7")
case("generic without an id", HEX, [("x-sign", generic().hex())], "ok", identity=f"body:{SHA}")
case("generic with a wrong secret", HEX, [("x-sign", generic(OTHER).hex())], "mismatch")
case("generic, digits that are none", HEX, [("x-sign", "zz" * 32)], "malformed")
case("generic in base 64", B64, [("x-sign", "hmac " + base64.b64encode(generic()).decode())], "ok", identity=f"body:{SHA}")
case("generic in base 64 without its prefix", B64, [("x-sign", base64.b64encode(generic()).decode())], "malformed")
case("generic, base 64 where hex is due", HEX, [("x-sign", base64.b64encode(generic()).decode())], "malformed")

print(json.dumps(cases, indent=1))
