"""TLS and passwords of an exporter, read from Prometheus' own web configuration file.

The format is that of Prometheus and its exporters (``--web.config.file``): ``tls_server_config`` and
``basic_auth_users`` with bcrypt hashes, so that one file and one way to make it serve all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import threading
from pathlib import Path
from typing import Literal

import bcrypt
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reconsent.errors import ConfigError

_NOBODY = bcrypt.hashpw(b"nobody", bcrypt.gensalt(rounds=10)).decode()
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}


class TlsServerConfig(BaseModel):
    """The table ``tls_server_config``; paths are relative to the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cert_file: Path
    key_file: Path
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = (
        "NoClientCert"
    )
    client_ca_file: Path | None = None
    min_version: Literal["TLS12", "TLS13"] = "TLS12"


class WebConfig(BaseModel):
    """What is in the file. Empty: neither TLS nor passwords."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tls_server_config: TlsServerConfig | None = None
    basic_auth_users: dict[str, str] = Field(default_factory=dict)

    @field_validator("basic_auth_users")
    @classmethod
    def _hashed(cls, users: dict[str, str]) -> dict[str, str]:
        for user, hashed in users.items():
            if not (hashed.startswith(("$2a$", "$2b$", "$2y$")) and len(hashed) == 60):
                # Not the value: it may well be the password itself.
                raise ValueError(f"the password of '{user}' is no bcrypt hash; make one with htpasswd -nB")
        return users


class WebConfigFile:
    """The file, read again when it changes, as Prometheus reads its own.

    A file that has become unreadable or malformed lets nobody in until it is mended. Certificates that are
    renewed in place are used from the next connection on.

    Parameters
    ----------
    path
        The file; ``None`` for neither TLS nor passwords.

    Raises
    ------
    ConfigError
        If it cannot be read, or asks for what is not there.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: object = None
        self._certificates: object = None
        self._config = WebConfig()
        # Of a password that was right: bcrypt takes as long as a scrape, and each scrape brings it.
        self._known: set[bytes] = set()
        self.context = self._make_context(self.current())

    def current(self) -> WebConfig:
        """The file's present content.

        Raises
        ------
        ConfigError
            If it cannot be read.
        """
        if self.path is None:
            return self._config
        with self._lock:
            stamp = _stamp(self.path)
            if stamp is None or stamp != self._stamp:
                self._config, self._stamp = read_web_config(self.path), stamp
                self._known.clear()
            return self._config

    def admits(self, user: str, password: str) -> bool:
        """Whether a user with that password is let in.

        Raises
        ------
        ConfigError
            If the file cannot be read any more.
        """
        users = self.current().basic_auth_users
        hashed = users.get(user, _NOBODY)
        # Longer ones are cut by bcrypt, or refused, depending on its version.
        secret = password.encode()[:72]
        known = hashlib.sha256(b"\0".join((user.encode(), hashed.encode(), secret))).digest()
        if any(hmac.compare_digest(known, other) for other in tuple(self._known)):
            return True
        right = bcrypt.checkpw(secret, hashed.encode()) and user in users
        if right:
            self._known.add(known)
        return right

    def refresh_certificates(self) -> None:
        """Load certificate and key again if their files were replaced; a broken pair leaves the old one."""
        tls = self.current().tls_server_config
        if tls is None or self.context is None:
            return
        stamps = (_stamp(tls.cert_file), _stamp(tls.key_file))
        if stamps != self._certificates and None not in stamps:
            try:
                self.context.load_cert_chain(tls.cert_file, tls.key_file)
            except (ssl.SSLError, OSError):
                return
            self._certificates = stamps

    def _make_context(self, config: WebConfig) -> ssl.SSLContext | None:
        tls = config.tls_server_config
        if tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[tls.min_version]
        if tls.client_auth_type != "NoClientCert" and tls.client_ca_file is None:
            raise ConfigError(
                f"{self.path}: client_auth_type is {tls.client_auth_type}, but there is no client_ca_file.",
                "Name the authority that signs the clients' certificates.",
            )
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file)
            if tls.client_auth_type != "NoClientCert":
                context.load_verify_locations(tls.client_ca_file)
                required = tls.client_auth_type == "RequireAndVerifyClientCert"
                context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"{self.path}: the certificate or key cannot be used: {error}.",
                f"Check {tls.cert_file} and {tls.key_file}; the key must be that of the certificate.",
            ) from None
        self._certificates = (_stamp(tls.cert_file), _stamp(tls.key_file))
        return context


def read_web_config(path: Path) -> WebConfig:
    """Read the file; relative paths in it are relative to it.

    Raises
    ------
    ConfigError
        If it is missing, is not YAML or does not fit; every problem is listed.
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        config = WebConfig.model_validate(table)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The web configuration {path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}.", "Mend that line.") from None
    except ValidationError as error:
        problems = "\n".join(
            f"  - {'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_input=False)
        )
        raise ConfigError(
            f"{path} is no web configuration that can be followed:\n{problems}\n",
            "Known are tls_server_config and basic_auth_users.",
        ) from None
    tls = config.tls_server_config
    if tls is None:
        return config
    base = path.absolute().parent
    moved = {
        name: base / value
        for name in ("cert_file", "key_file", "client_ca_file")
        if (value := getattr(tls, name)) is not None
    }
    return config.model_copy(update={"tls_server_config": tls.model_copy(update=moved)})


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
