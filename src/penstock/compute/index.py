"""Where packages come from: what the machine has set up for pip, said so that uv understands it.

uv does not read pip's configuration by itself. Its own variables, where the server has them, go before it; nothing else of
the server's environment reaches a build but how to get through the network.
"""

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

KEPT: Final = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS",
    "UV_HTTP_TIMEOUT", "UV_INSECURE_HOST", "UV_KEYRING_PROVIDER", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_OFFLINE",
    "UV_EXCLUDE_NEWER", "UV_PRERELEASE", "UV_RESOLUTION", "UV_CONCURRENT_BUILDS", "UV_CONCURRENT_DOWNLOADS",
)  # fmt: skip
"""Names of the server's environment that a build gets, as it does those that begin with `UV_INDEX`."""

_INDEXES: Final = "UV_INDEX"
_AS_PIP_DOES: Final = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
"""All indexes are equal to pip; uv by itself would take a package only from the first that has any version of it."""

# pip's name: uv's name, what stands between several values there, and uv's names that say it already.
_MEANINGS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "index-url": ("UV_DEFAULT_INDEX", " ", ("UV_INDEX_URL",)),
    "extra-index-url": ("UV_INDEX", " ", ("UV_EXTRA_INDEX_URL",)),
    "find-links": ("UV_FIND_LINKS", ",", ()),
    "trusted-host": ("UV_INSECURE_HOST", " ", ()),
    "cert": ("SSL_CERT_FILE", " ", ()),
    "timeout": ("UV_HTTP_TIMEOUT", " ", ()),
}


def index_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that tell uv where packages come from, on a machine with that environment."""
    found = {name: value for name, value in environ.items() if name in KEPT or name.startswith(_INDEXES)}
    for name, value in _settings_of_pip(environ).items():
        if name in _MEANINGS and value.split():
            known, separator, same = _MEANINGS[name]
            if known not in found and not any(other in found for other in same):
                found[known] = separator.join(value.split())
                if known == _INDEXES:
                    found = {**_AS_PIP_DOES, **found}
    return found


def index_words(environ: Mapping[str, str]) -> list[str]:
    """Return what uv has no variable for, as words of its command."""
    wanted = _settings_of_pip(environ).get("no-index", "").lower() in {"1", "true", "yes", "on"}
    return ["--no-index"] if wanted else []


def _settings_of_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what pip is set up for: its files, then its variables, as pip orders them."""
    found: dict[str, str] = {}
    for section in ("global", "install"):
        for file in _files_of_pip(environ):
            parser = configparser.RawConfigParser()
            try:
                parser.read(file, encoding="utf-8")
            except (configparser.Error, OSError, UnicodeDecodeError):
                continue  # pip itself says what is wrong with it
            if parser.has_section(section):
                found.update({name.replace("_", "-"): value for name, value in parser.items(section)})
    for name, value in environ.items():
        if name.startswith("PIP_"):
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    if found.get("default-timeout"):
        found.setdefault("timeout", found["default-timeout"])
    return found


def _files_of_pip(environ: Mapping[str, str]) -> list[Path]:
    """Return pip's files of configuration, those that count more behind those that count less."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    shared = [Path(one) / "pip" for one in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if one]
    files = [folder / "pip.conf" for folder in reversed(shared)] + [Path("/etc/pip.conf")]
    if named is None or not Path(named).exists():
        own = environ.get("XDG_CONFIG_HOME") or home / ".config"
        files += [home / ".pip" / "pip.conf", Path(own) / "pip" / "pip.conf"]
    files.append(Path(sys.prefix) / "pip.conf")
    return files if named is None else [*files, Path(named)]
