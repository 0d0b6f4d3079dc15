"""Who may ask: nobody under a name that is not this machine's, and no page of another site, both as browsers tell it."""

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from ipaddress import ip_address

from stages.serve.limits import RefusedError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]+)?")


def check_name(headers: Mapping[str, str], names: Collection[str]) -> None:
    """Raise RefusedError unless the request is to an address, or to one of these ``names`` in lower case.

    A site whose name was turned to this machine's address comes with its own, and could read answers. An address cannot be turned.
    """
    host = headers.get("host", "")
    found = _HOST.fullmatch(host.lower())
    name = found[1].strip("[]") if found else ""
    with suppress(ValueError):
        ip_address(name)
        return
    if name not in names:
        expected = ", ".join(sorted(names))
        raise RefusedError(403, f"expected a request to an address or {expected}, found {host!r}; ask for one of these")


def check_site(headers: Mapping[str, str]) -> None:
    """Raise RefusedError for a request that a page of another site makes: it could not read the answer, but have it computed."""
    site, origin, host = (headers.get(name, "").lower() for name in ("sec-fetch-site", "origin", "host"))
    if site in ("cross-site", "same-site") or (origin and origin.partition("://")[2] != host):
        raise RefusedError(403, f"expected a request of headstart's own page, found one of {origin or 'another site'}")
