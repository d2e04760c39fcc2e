"""Addresses, and whose key goes where.

A key belongs to a host. `OPENAI_API_KEY` is for api.openai.com (or for `OPENAI_BASE_URL` where the environment names
one beside it), `ANTHROPIC_API_KEY` likewise, and no other server is sent them. Any other address has a variable of its
own, HAFS_KEY_ and the address in capitals: `HAFS_KEY_BOX_EXAMPLE_ORG`, `HAFS_KEY_127_0_0_1_8000`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.parse
import urllib.request

from hafs.errors import UsageError

FORM = "http://HOST:PORT/v1"
OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com"
NO_KEY = "none"
"""What the SDK is given where an address has no key: it insists on one."""
_SHORTEST_KEY = 8  # what is shorter is not masked: it would be found in any text


def port_of(url: str, form: str = FORM) -> int | None:
    """The port in an address, None where it has none. Raises UsageError for what is no address of `form`."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise UsageError(f"{url} is no address: {e}", f"write it as {form}") from e
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\0]", url):
        raise UsageError(f"{url} is no address: it begins with neither http:// nor https://", f"write it as {form}")
    if parts.username or parts.password:
        raise UsageError(f"the address of {parts.hostname} holds a user or password", key_hint(f"//{parts.hostname}"))
    return port


def base_url(url: str, form: str = FORM) -> str:
    """`url` with the /v1 that servers have where it names no path. Raises UsageError for what is no address."""
    port_of(url, form)
    return url.rstrip("/") + ("/v1" if urllib.parse.urlsplit(url).path in ("", "/") else "")


def is_local(endpoint: str) -> bool:
    """Whether an endpoint is on this machine or in a private network, where tokens cost nothing."""
    host = urllib.parse.urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host in ("", "localhost") or host.endswith((".local", ".internal", ".localhost")) or "." not in host


def origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port): two addresses with the same one are the same server."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for `url`; never one for this machine or a private network."""
    parts = urllib.parse.urlsplit(url)
    if is_local(url) or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def key_variable(url: str) -> str:
    """The environment variable with the key of an address."""
    for vendor, usual in (("OPENAI", OPENAI), ("ANTHROPIC", ANTHROPIC)):
        if origin(url) == origin(os.environ.get(f"{vendor}_BASE_URL") or usual):
            return f"{vendor}_API_KEY"
    parts = urllib.parse.urlsplit(url)
    name = f"{parts.hostname}_{parts.port}" if parts.port else parts.hostname or ""
    return "HAFS_KEY_" + re.sub(r"[^A-Z0-9]+", "_", name.upper())


def key_hint(url: str) -> str:
    """How to give the key of an address."""
    name = key_variable(url)
    theirs = " ($OPENAI_API_KEY goes to OpenAI alone)" if name.startswith("HAFS_") else ""
    return f"export {name}=…{theirs}"


def key_for(url: str) -> str:
    """The key of an address, "" without one. Raises UsageError where it would go in the clear to the open network."""
    key = os.environ.get(key_variable(url), "")
    if key:
        check_clear(url, key_variable(url))
    return key


def check_clear(url: str, variable: str) -> None:
    """Raises UsageError when a key would go to `url` for anybody on the way to read."""
    if urllib.parse.urlsplit(url).scheme == "http" and not is_local(url):
        host = urllib.parse.urlsplit(url).hostname
        raise UsageError(f"the key in {variable} would go to {host} in the clear", f"https://, or unset {variable}")


def mask(text: str, key: str) -> str:
    """`text` without the key that a server may have sent back."""
    return text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text
