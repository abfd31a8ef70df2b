"""What to look for in the raw bytes of a state directory."""

from __future__ import annotations

import base64
from pathlib import Path

from unlearning.site_keys import KeyPolicy, SiteKeys

POLICY = KeyPolicy()


def everything(state: Path) -> bytes:
    """All bytes of all files."""
    return b"\0".join(path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file())


def keys_of(state: Path, site: str) -> list[bytes]:
    """A site's key in every form in which it could lie about: plain, base64, wrapped."""
    keys = SiteKeys(state / "keys", POLICY)
    plain, wrapped = keys.existing(site), keys.entries()[site]["wrapped"]
    return [plain, base64.b64encode(plain), plain.hex().encode(), wrapped.encode(), base64.b64decode(wrapped)]
