"""Metrics of certificates: when those end by which the sites know the server."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from reconsent.exposition import Metric, Samples, Topic

EXPIRY = Metric(
    "reconsent_certificate_expiry_timestamp_seconds",
    "gauge",
    "When a certificate ends, in seconds since 1970, by the name of its file",
    ("file",),
    "for each certificate the exporter was told of that can be read",
)

TOPIC = Topic("Certificates", (EXPIRY,))


def collect_certificates(files: tuple[Path, ...], samples: Samples) -> None:
    """Fill in this topic's metric: of a file with several certificates, the one that ends first."""
    for file in files:
        try:
            found = x509.load_pem_x509_certificates(file.read_bytes())
        except (OSError, ValueError):
            continue
        samples.set(EXPIRY, min(each.not_valid_after_utc for each in found).timestamp(), file.name)
