"""The names under which the app's server may be asked, and the pages from which.

Any web page that is open in a browser on this machine, or in its network, can send requests here, also under a name of
its own that it lets point here (DNS rebinding). Starlette's TrustedHostMiddleware does less: it looks at no Origin,
takes the first of two Host headers, and cannot let through the address at which a request came in.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Set
from contextlib import suppress
from urllib.parse import urlsplit

from utils.system.errors import UsageError

LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
NAME = re.compile(rf"{LABEL}(\.{LABEL})*")
HOST = re.compile(r"(?:\[([^\]]+)\]|([\w.-]+))(?::\d+)?", re.ASCII)  # as browsers send it: with a port, or without


def host_name(text: str) -> str:
    """Bring a host's name or address, without scheme and port, to the form of `plain_name`. Raises UsageError."""
    name = plain_name(text.strip().removeprefix("[").removesuffix("]"))
    if is_address(name) or (NAME.fullmatch(name) and len(name) <= 253):
        return name
    raise UsageError(f"{text!r} is no host's name or address, such as line7.example or 192.168.0.7")


def own_names(host: str, address: str, allowed: Iterable[str] = ()) -> set[str]:
    """Names of a server at `host`, whose address is `address`: that host's, those that are `allowed`, and of a server
    at all of a machine's addresses the machine's own, as it knows it without asking the network."""
    names = {host, address, *allowed}
    if ipaddress.ip_address(address).is_loopback:
        names.add("localhost")
    elif ipaddress.ip_address(address).is_unspecified:
        names |= {"localhost", socket.gethostname(), socket.gethostname().split(".")[0]}
    return {plain_name(name) for name in names}


def is_own(host: str, origin: str | None, names: Set[str]) -> bool:
    """Tell whether a request is for this server by its name, and comes from a page of it or from no page."""
    match = HOST.fullmatch(host)
    if not match or plain_name(match[1] or match[2]) not in names:
        return False
    with suppress(ValueError):  # half a bracket
        return origin is None or urlsplit(origin).netloc == host
    return False


def plain_name(name: str) -> str:
    """Bring a name or an address to the one form in which they are compared."""
    name = name.lower().removesuffix(".")
    return str(ipaddress.ip_address(name)) if is_address(name) else name


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
