"""The proxies that the environment names: never for this machine, and their passwords never shown."""

import ipaddress
import os
import re
from urllib.request import getproxies, proxy_bypass

__all__ = ["grpc_proxy", "http_proxy", "mention"]

# In gRPC's own order; it does not know them in capitals.
_GRPC_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_GRPC_PROXIES = ("no_grpc_proxy", "no_proxy")


def http_proxy(scheme: str, host: str, port: int | None = None) -> str | None:
    """Return the URL of the proxy on the way to a host; None if there is none, as to this machine."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    place = host if port is None else f"{host}:{port}"
    if not proxy or _is_loopback(host) or proxy_bypass(place):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def grpc_proxy(host: str) -> str | None:
    """Return the proxy that gRPC takes on the way to a host; None if there is none, as to this machine."""
    proxy, exceptions = map(_first_set, (_GRPC_PROXIES, _NO_GRPC_PROXIES))
    avoided = any(
        host.lower().endswith(end.strip().lower()) for end in exceptions.split(",") if end.strip()
    )
    return None if not proxy or avoided or _is_loopback(host) else proxy


def mention(proxy: str | None, host: str) -> str:
    """Return what an error's text says in the end of a proxy, without its password."""
    if proxy is None:
        return ""
    shown = re.sub(r"^(.*//)?.*@", r"\1", proxy)
    return (
        f"; asked through the proxy {shown} of the environment, which no_proxy={host} would avoid"
    )


def _first_set(variables: tuple[str, ...]) -> str:
    return next(filter(None, map(os.environ.get, variables)), "")


def _is_loopback(host: str) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
