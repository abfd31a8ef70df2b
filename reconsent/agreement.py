"""What server and sites must have alike in their copies of the consortium file, as one digest a part."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from reconsent.config import ConsortiumConfig

_LOCAL_TRAINING = {
    "local_epochs",
    "local_steps",
    "batch_size",
    "weight_decay",
    "l1_weight",
    "gradient_clip",
}
"""What a site reads of ``[training]``; the rest it is told, or is the server's own affair."""

_HOW_TO_COMPUTE = {"gradients"}
"""What differential privacy is computed by, which a site may choose by its hardware."""


def shared_parts(consortium: ConsortiumConfig, site: str) -> dict[str, str]:
    """Part of the consortium file → SHA-256 of what it says to ``site``, hexadecimal.

    The parts are ``seed``, ``model``, ``training`` (the site's own share in it), and this site's ``sampling``
    and ``privacy``. Where the data lie, other sites' tables and what only the server reads may differ. A key
    at its default is left out, so that releases which differ in keys nobody set agree.

    Raises
    ------
    ConfigError
        If the consortium has no such site.
    """
    own = consortium.site(site)
    parts: dict[str, Any] = {
        "seed": consortium.seed,
        "model": consortium.model.model_dump(mode="json", exclude_defaults=True),
        "training": consortium.training.model_dump(
            mode="json", exclude_defaults=True, include=_LOCAL_TRAINING
        ),
        "sampling": own.sampling.model_dump(mode="json", exclude_defaults=True),
        "privacy": consortium.privacy_of(own).model_dump(
            mode="json", exclude_defaults=True, exclude=_HOW_TO_COMPUTE
        ),
    }
    return {part: _digest(said) for part, said in parts.items()}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
