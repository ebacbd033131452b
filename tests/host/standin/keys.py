"""Function keys: the secrets files, what a key is good for, and the identities that come of it."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_CLAIMS = "http://schemas.microsoft.com/2017/07/functions/claims/"
_STRING = "http://www.w3.org/2001/XMLSchema#string"
_NAME_CLAIM = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"
_ROLE_CLAIM = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"

FUNCTION = "Function"
ADMIN = "Admin"
SYSTEM = "System"


@dataclass(frozen=True)
class KeyIdentity:
    """What a key proves."""

    level: str
    name: str | None = None

    def as_json(self) -> Json:
        """As an entry of ``Identities``. Core Tools' made-up Admin has no name and no invoke claim."""
        claims = [(_CLAIMS + "authlevel", self.level)]
        if self.name is not None:
            claims += [(_CLAIMS + "invoke", "true"), (_CLAIMS + "keyid", self.name)]
        return identity("WebJobsAuthLevel", claims)


def identity(
    authentication_type: str | None,
    claims: list[tuple[str, str]],
    name: str | None = None,
    name_type: str = _NAME_CLAIM,
    role_type: str = _ROLE_CLAIM,
) -> Json:
    """A ClaimsIdentity as the host prints it."""
    return {
        "AuthenticationType": authentication_type,
        "IsAuthenticated": authentication_type is not None,
        "Actor": None,
        "BootstrapContext": None,
        "Claims": [
            {
                "Issuer": "LOCAL AUTHORITY",
                "OriginalIssuer": "LOCAL AUTHORITY",
                "Properties": {},
                "Type": claim_type,
                "Value": value,
                "ValueType": _STRING,
            }
            for claim_type, value in claims
        ],
        "Label": None,
        "Name": name,
        "NameClaimType": name_type,
        "RoleClaimType": role_type,
    }


NOBODY = identity(None, [])


@dataclass(frozen=True)
class Secrets:
    """The contents of a secrets folder: ``host.json`` and ``<function>.json``."""

    master: str | None = None
    host_keys: Mapping[str, str] = field(default_factory=dict)
    system_keys: Mapping[str, str] = field(default_factory=dict)
    function_keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path | None) -> "Secrets":
        """Without a folder nothing validates."""
        if folder is None or not (folder / "host.json").is_file():
            return cls()
        host = json.loads((folder / "host.json").read_text())
        return cls(
            host["masterKey"]["value"],
            _named(host.get("functionKeys")),
            _named(host.get("systemKeys")),
            {
                path.stem.lower(): _named(json.loads(path.read_text()).get("keys"))
                for path in folder.glob("*.json")
                if path.name != "host.json"
            },
        )

    def resolve(self, key: str, function: str | None) -> KeyIdentity | None:
        """What ``key`` is for ``function`` (none for the admin pages)."""
        if self.master is not None and _same(key, self.master):
            return KeyIdentity(ADMIN, "master")
        own = self.function_keys.get(function.lower(), {}) if function is not None else {}
        for level, keys in ((FUNCTION, own), (FUNCTION, self.host_keys), (SYSTEM, self.system_keys)):
            for name, value in keys.items():
                if _same(key, value):
                    return KeyIdentity(level, name)
        return None


def _named(items: list[Json] | None) -> dict[str, str]:
    return {item["name"]: item["value"] for item in items or []}


def _same(one: str, two: str) -> bool:
    return hmac.compare_digest(one.encode(), two.encode())


def presented(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The header first; ``code`` only where there is no header at all."""
    for name, value in headers.items():
        if name.lower() == "x-functions-key":
            return value
    return query.get("code")


class KeyCheck:
    """Authentication and authorization by key, as on Azure or as under ``func start``."""

    def __init__(self, mode: str, secrets: Secrets) -> None:
        if mode not in ("azure", "coretools"):
            raise ValueError(f"auth: {mode}")
        self.mode = mode
        self._secrets = secrets

    def authenticate(
        self, function: str | None, headers: Mapping[str, str], query: Mapping[str, str], asked: bool
    ) -> KeyIdentity | None:
        """``asked``: the route demands a level or the request carries a platform principal."""
        key = presented(headers, query)
        if self.mode == "coretools":
            return KeyIdentity(ADMIN) if asked or key is not None else None
        return None if key is None else self._secrets.resolve(key, function)

    def allows(self, required: str, who: KeyIdentity | None) -> bool:
        """An anonymous route lets everyone through, whatever became of the key."""
        if required == "anonymous" or self.mode == "coretools":
            return True
        if who is None:
            return False
        return who.level == ADMIN or (required == "function" and who.level == FUNCTION)
