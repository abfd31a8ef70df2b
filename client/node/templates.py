"""The files that ``reconsent site init`` writes, to be edited."""

from __future__ import annotations

import os
from pathlib import Path

from reconsent.errors import ConfigError

SITE_TOML = """\
# The node of one hospital; start it with `reconsent site run site.toml`.
# `--check` checks everything, `--explain` says in words what the node shares.
# Relative paths are relative to this file.

name = "{name}"                        # as in the consortium file
superlink = "consortium.example:9092"  # HOST:PORT of the operator's server
ca = "ca.crt"                          # the operator's certificate
key = "node.key"                       # make it with `reconsent site key node.key`
consortium = "consortium.toml"         # this site's own copy; the server cannot change it
data = "scans"                         # fastMRI HDF5 files; see `reconsent data import`
policy = "policy.toml"                 # what the server may ask
log = "site.log.jsonl"                 # what it did ask, and what was answered
# organ = "knee"                       # must be that of the consortium file
# health-port = 9098                   # gRPC health check, on this machine only
# runtime-port = 9094                  # another one for each node on this machine
# code = "installed"                   # "received" would run whatever code the server sends
# flower-home = "flower"               # Flower's own directory (default ~/.flwr)
"""

POLICY_TOML = """\
# What the server may ask of this site. Read anew for every message: an edit counts at once.
# A mistake in this file forbids everything until it is mended.

withdrawn = false         # true: refuse everything; then tell the operator
may-train = true          # train on this site's scans
may-be-evaluated = true   # measure models on this site's test patients
# withdrawn-patients = []   # patients who withdrew while the site stays: left out from now on (docs/site.md)
# max-rounds-a-day = 100  # trainings in 24 hours
# With any of these three the site trains under differential privacy only (docs/privacy.md):
# max-epsilon = 8.0       # most ε on a patient, in all consortia together; unit = "slice" would count slices
# max-site-epsilon = 20.0 # the same on the site as a whole, by noise added here, or with trust-server = true
# max-delta = 1e-5        # largest δ, 1e-5 without this line: well below one over the number of patients
# The key that the server's ledger is signed with, by its fingerprint (`reconsent ledger key`, there);
# without this line the first that is seen.
# ledger-key = "…"
# Code that may run here, by its digest (`reconsent site code`); without this line any.
# trusted-code = ["{digest}"]
"""


def write_templates(directory: Path, name: str, digest: str) -> list[Path]:
    """Write ``site.toml`` and ``policy.toml`` into ``directory``, which is made if need be (mode 700).

    Raises
    ------
    ConfigError
        If one of them is there already, or cannot be written.
    """
    files = {
        directory / "site.toml": SITE_TOML.format(name=name),
        directory / "policy.toml": POLICY_TOML.format(digest=digest),
    }
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists already.", "Edit it, or choose another directory.")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, text in files.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written: {error}.", "Choose another directory.") from None
    return list(files)
