"""What the server is told of a failure at a site: no paths, no file names, no patients.

Flower sends the text of an exception to the server, and error messages here name files and patients, as they
should. So what leaves the site is chosen by a list of what is harmless, not by a search for what is not:
only errors of the arithmetic speak for themselves, and only if their words contain nothing of the site's;
of all others the class alone is told. The node's own output has the words under the same reference, with
files and patients blotted out, and where in the program it was.
"""

from __future__ import annotations

import re
import secrets
import sys
import traceback
from collections.abc import Collection, Mapping
from pathlib import Path

from reconsent.errors import ModelError, ReconsentError, RoundError

HARMLESS = (RoundError, ModelError)
LONGEST = 500

_LOCAL = re.compile(r"[/\\~]|\.(h5|hdf5|dcm|dicom|ima|nii|gz|npy|npz|dat|toml|json|txt|csv)\b", re.IGNORECASE)


def new_reference() -> str:
    """Eight hexadecimal digits that name one failure at both ends."""
    return secrets.token_hex(4)


def told_reason(error: BaseException, *, reference: str, names: Collection[str] | None) -> str:
    """The error as the server may see it: its class, and its words if they are harmless.

    Parameters
    ----------
    error
        What was raised.
    reference
        Where the whole text is found in the output of the site's node.
    names
        File names and patients of the site, which must not occur; ``None`` if they are not known, and then
        no words are told.
    """
    kind = type(error).__name__
    if isinstance(error, HARMLESS) and names is not None:
        text = " ".join(str(error).split())
        folded = str(error).casefold()
        if not _LOCAL.search(text) and not any(name.casefold() in folded for name in names if name):
            return f"{kind}: {text[:LONGEST]}"
    return f"{kind}: the details stay at the site, in its node's output under {reference}."


def where_it_failed(error: BaseException, names: Collection[str] | None) -> str:
    """The error for the node's own output: its words without the site's names, and where in the program.

    Parameters
    ----------
    error
        What was raised.
    names
        File names and patients of the site, which are blotted out; ``None`` if they are not known, and then
        the class stands for the words.
    """
    kind = type(error).__name__
    text = kind if names is None else f"{kind}: {blotted(str(error), names)}"
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return f"{text} [{' > '.join(places)}]"


def blotted(text: str, names: Collection[str]) -> str:
    """A text with every one of ``names`` replaced by dots, whatever the case of its letters."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(re.escape(name), "\N{HORIZONTAL ELLIPSIS}", text, flags=re.IGNORECASE)
    return text


def is_simulated(node_config: Mapping[str, object]) -> bool:
    """Whether this is a node of Flower's simulation, where the one person at work may see everything.

    It is one if it is counted instead of named, in a worker of Ray. A deployed node is neither, and nothing
    that a server sends can make it one.
    """
    return "partition-id" in node_config and "site" not in node_config and "ray" in sys.modules


def simulated_reason(error: BaseException) -> str:
    """The error in full if it is one of ours; of others the class and the first line."""
    text = str(error) if isinstance(error, ReconsentError) else str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}"
