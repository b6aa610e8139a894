"""Where packages come from on this machine: what pip, npm, go and cargo are set up for, and the settings."""

from __future__ import annotations

import configparser
import ipaddress
import netrc
import os
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from fleet.config.settings import RegistrySettings
from fleet.kernel.errors import ConfigError
from fleet.policy.addresses import address_refusal
from fleet.policy.runs.toolchains import Language
from fleet.sandbox.egress.proxy import EgressSettings, Resolver, system_resolver
from fleet.workspace.service.environments import RegistryAccess

_PUBLIC: Mapping[Language, tuple[str, ...]] = {
    "python": ("pypi.org", "files.pythonhosted.org"),
    "node": ("registry.npmjs.org",),
    "go": ("proxy.golang.org", "sum.golang.org", "storage.googleapis.com"),
    "rust": ("index.crates.io", "static.crates.io", "crates.io"),
}
_CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
_OWN_NAME = "registry-{}.this-machine"


@dataclass(frozen=True, slots=True)
class HostRegistries:
    """How one language's registries are reached from this machine, and what the proxy has to allow for it."""

    access: RegistryAccess
    egress: EgressSettings


def host_registries(
    language: Language, settings: RegistrySettings | None, environ: Mapping[str, str], home: Path
) -> HostRegistries:
    """The registries of the language, by the settings or else by this machine's own configuration.

    An address on this machine's loopback gets a name of its own, which only the proxy knows: inside a sandbox the
    loopback is the sandbox's.

    Raises:
        ConfigError: the variable of the settings is not set, or holds no http address.
    """
    given = settings or RegistrySettings()
    urls = [_given_url(language, given, environ)] if given.url_env else _configured(language, environ, home)
    names = dict[str, str]()
    reached = [_reachable(_with_password(url, environ, home), names) for url in urls]
    config = _npm_config(reached[0]) if language == "node" and reached else None
    addresses = {} if language == "node" else _variables(language, [urlunsplit(url) for url in reached])
    own = [f"{url.hostname}:{url.port or (443 if url.scheme == 'https' else 80)}" for url in reached]
    hosts = tuple(dict.fromkeys((*own, *_PUBLIC[language], *given.hosts)))
    access = RegistryAccess(hosts, addresses, config, _certificates(environ, home))
    private = _private_addresses([host.partition(":")[0] for host in hosts if not host.startswith(".")], names)
    return HostRegistries(access, EgressSettings(resolve=_resolver(names), allow_addresses=private))


def _given_url(language: Language, given: RegistrySettings, environ: Mapping[str, str]) -> str:
    assert given.url_env is not None
    url = environ.get(given.url_env, "").strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"sandbox.registries.{language}.url_env: the variable {given.url_env} holds no http or https address: set "
            "it",
            field=f"sandbox.registries.{language}.url_env",
        )
    return url


def _configured(language: Language, environ: Mapping[str, str], home: Path) -> list[str]:
    """Addresses that this machine's own tool is set up for; none where it uses the public registry."""
    match language:
        case "python":
            files = [environ.get("PIP_CONFIG_FILE", ""), "/etc/pip.conf", home / ".pip/pip.conf"]
            files += [home / ".config/pip/pip.conf", Path(sys.prefix, "pip.conf")]
            parser = configparser.ConfigParser(interpolation=None, strict=False)
            for file in files:
                _read_ini(parser, file)
            values = [_pip_value(parser, environ, key) for key in ("index-url", "extra-index-url")]
            return [url for value in values for url in value.split() if _is_http(url)]
        case "node":
            url = environ.get("npm_config_registry") or _npmrc(home).get("registry", "")
            return [url] if _is_http(url) else []
        case "go":
            return [url for url in re.split(r"[,|]", environ.get("GOPROXY", "")) if _is_http(url)]
        case "rust":
            return []


def _read_ini(parser: configparser.ConfigParser, file: str | Path) -> None:
    try:
        parser.read(file, encoding="utf-8") if file else None
    except (configparser.Error, UnicodeDecodeError):
        return


def _pip_value(parser: configparser.ConfigParser, environ: Mapping[str, str], key: str) -> str:
    variable = f"PIP_{key.upper().replace('-', '_')}"
    places = (environ.get(variable), parser.get("install", key, fallback=""), parser.get("global", key, fallback=""))
    return next((value for value in places if value), "")


def _is_http(url: str) -> bool:
    parts = urlsplit(url.strip())
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _npmrc(home: Path) -> dict[str, str]:
    try:
        lines = (home / ".npmrc").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith(("#", ";")))
    return {name.strip(): os.path.expandvars(value.strip()) for name, value in pairs}


def _with_password(url: str, environ: Mapping[str, str], home: Path) -> SplitResult:
    """The address with the name and password that this machine keeps for its host."""
    parts = urlsplit(url.strip())
    if parts.username is not None or parts.hostname is None:
        return parts
    try:
        entry = netrc.netrc(environ.get("NETRC") or str(home / ".netrc")).authenticators(parts.hostname)
    except (OSError, netrc.NetrcParseError):
        entry = None
    if entry is None or not entry[2]:
        return parts
    login = f"{quote(entry[0], safe='')}:{quote(entry[2], safe='')}"
    return parts._replace(netloc=f"{login}@{parts.netloc}")


def _reachable(url: SplitResult, names: dict[str, str]) -> SplitResult:
    host = str(url.hostname)
    if not _is_loopback(host):
        return url
    name = _OWN_NAME.format(len(names) + 1)
    names[name] = "127.0.0.1" if host == "localhost" else host
    login, at, _ = url.netloc.rpartition("@")
    return url._replace(netloc=f"{login}{at}{name}:{url.port or (443 if url.scheme == 'https' else 80)}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _variables(language: Language, urls: list[str]) -> dict[str, str]:
    if not urls:
        return {}
    match language:
        case "python":
            plain = " ".join(str(urlsplit(url).hostname) for url in urls if url.startswith("http://"))
            more = {"PIP_EXTRA_INDEX_URL": " ".join(urls[1:]), "PIP_TRUSTED_HOST": plain}
            return {"PIP_INDEX_URL": urls[0], **{name: value for name, value in more.items() if value}}
        case "go":
            return {"GOPROXY": ",".join(urls)}
        case "node" | "rust":
            return {}


def _npm_config(url: SplitResult) -> str:
    login, _, host = url.netloc.rpartition("@")
    lines = [f"registry={urlunsplit(url._replace(netloc=host))}"]
    if login:
        user, _, password = login.partition(":")
        place = f"//{host}{url.path.rstrip('/')}/"
        lines += [f"{place}:username={user}", f"{place}:_password={password}"]
    return "\n".join(lines) + "\n"


def _certificates(environ: Mapping[str, str], home: Path) -> bytes | None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    for file in ("/etc/pip.conf", home / ".config/pip/pip.conf"):
        _read_ini(parser, file)
    places = [environ.get(name, "") for name in _CA_VARIABLES] + [parser.get("global", "cert", fallback="")]
    for place in filter(None, places):
        try:
            return Path(place).read_bytes()
        except OSError:
            continue
    return None


def _private_addresses(hosts: Iterable[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Addresses of registries that are not public: a mirror within the owner's network, to which this machine leads.

    They are looked up once, before the run; what a name leads to later has to be one of them, or public.
    """
    addresses = set(names.values())
    for host in hosts:
        if host not in names:
            try:
                addresses |= {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
            except OSError:
                continue
    return tuple(sorted(one for one in addresses if address_refusal(one) is not None))


def _resolver(names: Mapping[str, str]) -> Resolver:
    system = system_resolver()

    async def resolve(host: str) -> list[str]:
        return [names[host]] if host in names else list(await system(host))

    return resolve
