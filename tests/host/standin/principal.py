"""What App Service authentication or Static Web Apps puts in front of the host, as headers.

Who is logged in is told by a made-up cookie: ``AppServiceAuthSession=<name>`` or
``StaticWebAppsAuthCookie=<name>``, where the name is one of the identities the stand-in was given.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any

from . import keys

Headers = list[tuple[str, str]]
Json = dict[str, Any]

_STRIPPED = ("x-ms-client-principal", "x-ms-token-")
_DIRECT = "x-standin-direct"
"""Test switch in ``swa`` mode: this request did not come through the static web app."""


@dataclass(frozen=True)
class Person:
    """Somebody who can be logged in."""

    id: str
    name: str
    provider: str = "aad"
    tenant: str = "99999999-8888-7777-6666-555555555555"
    roles: tuple[str, ...] = ()
    swa_id: str = "d75b260a64504067bfc5b2905e3b8182"

    def easyauth(self) -> Json:
        """The App Service shape."""
        claims = [
            ("http://schemas.microsoft.com/identity/claims/objectidentifier", self.id),
            ("http://schemas.microsoft.com/identity/claims/tenantid", self.tenant),
            ("preferred_username", self.name),
            *(("roles", role) for role in self.roles),
        ]
        return {
            "auth_typ": self.provider,
            "claims": [{"typ": claim_type, "val": value} for claim_type, value in claims],
            "name_typ": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
            "role_typ": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
        }

    def swa(self) -> Json:
        """The Static Web Apps shape; its user id is not the one of Entra."""
        return {
            "identityProvider": self.provider,
            "userId": self.swa_id,
            "userDetails": self.name,
            "userRoles": ["anonymous", "authenticated", *self.roles],
        }


ADA = Person("11111111-2222-3333-4444-555555555555", "user@example.com", roles=("Runner",))


def encode(shape: Json) -> str:
    """The header's value."""
    return base64.b64encode(json.dumps(shape, separators=(",", ":")).encode()).decode()


@dataclass
class Platform:
    """``off`` passes everything; ``on`` and ``swa`` strip what clients claim and set what is so."""

    mode: str = "off"
    people: Mapping[str, Person] = field(default_factory=lambda: {"ada": ADA})

    def __post_init__(self) -> None:
        if self.mode not in ("off", "on", "swa"):
            raise ValueError(f"easyauth: {self.mode}")

    def environment(self) -> dict[str, str]:
        """What the platform tells the app about itself."""
        return {} if self.mode == "off" else {"WEBSITE_AUTH_ENABLED": "True"}

    def apply(self, headers: Headers, url: str) -> Headers | None:
        """The headers as they reach the host; None when the platform answers 401 itself."""
        if self.mode == "off":
            return headers
        if self.mode == "swa" and any(name.lower() == _DIRECT for name, _ in headers):
            return None
        kept = [(name, value) for name, value in headers if not name.lower().startswith(_STRIPPED)]
        person = self._logged_in(headers)
        if self.mode == "on":
            return kept if person is None else [*kept, *self._easyauth(person)]
        kept = [
            (name, value)
            for name, value in kept
            if name.lower() not in ("authorization", "x-ms-original-url", "x-ms-auth-token")
        ]
        kept.append(("x-ms-original-url", url))
        if person is not None:
            token = encode({"prn": encode(person.swa())})
            kept.append(("x-ms-client-principal", encode(person.swa())))
            kept.append(("x-ms-auth-token", f"Bearer {token}"))
            kept.append(("Authorization", f"Bearer {token}"))
        return kept

    def _logged_in(self, headers: Headers) -> Person | None:
        cookie: SimpleCookie = SimpleCookie()
        for name, value in headers:
            if name.lower() == "cookie":
                try:
                    cookie.load(value)
                except CookieError:
                    return None
        wanted = "AppServiceAuthSession" if self.mode == "on" else "StaticWebAppsAuthCookie"
        found = cookie.get(wanted)
        return self.people.get(found.value) if found is not None else None

    @staticmethod
    def _easyauth(person: Person) -> Headers:
        return [
            ("X-MS-CLIENT-PRINCIPAL", encode(person.easyauth())),
            ("X-MS-CLIENT-PRINCIPAL-ID", person.id),
            ("X-MS-CLIENT-PRINCIPAL-NAME", person.name),
            ("X-MS-CLIENT-PRINCIPAL-IDP", person.provider),
        ]


def parse_identity(header: str | None, environment: Mapping[str, str]) -> Json | None:
    """The host's own reading of the header, only where the app says that authentication is enabled.

    Raises ValueError for what is not base64 or not JSON: the host answers 500 then.
    """
    if header is None or environment.get("WEBSITE_AUTH_ENABLED", "").lower() != "true":
        return None
    value = json.loads(base64.b64decode(header, validate=True))
    if not isinstance(value, dict):
        return None
    if "auth_typ" in value:
        name_type, role_type = str(value.get("name_typ")), str(value.get("role_typ"))
        claims = [(str(claim["typ"]), str(claim["val"])) for claim in value.get("claims") or []]
        name = next((text for claim_type, text in claims if claim_type == name_type), None)
        return keys.identity(str(value["auth_typ"]), claims, name, name_type, role_type)
    if "identityProvider" in value:
        claims = [
            ("http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier", str(value.get("userId")))
        ]
        details = value.get("userDetails")
        claims.append(("http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name", str(details)))
        role = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"
        claims += [(role, str(text)) for text in value.get("userRoles") or []]
        return keys.identity(
            str(value["identityProvider"]), claims, None if details is None else str(details)
        )
    return None
