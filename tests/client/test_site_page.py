"""The hospital's page names every key of its policy and every reason of a refusal."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from client.policy import SitePolicy
from strategies import messages as msg

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "site.md").read_text(encoding="utf-8")


def table(after: str) -> list[str]:
    """First cells of the rows of the first table after a line, without its heading."""
    rows = re.search(r"^\|.*?(?=\n\n)", PAGE[PAGE.index(after) :], flags=re.MULTILINE | re.DOTALL)
    assert rows is not None
    return [line.split("|")[1].strip(" `") for line in rows[0].splitlines()[2:]]


def codes_of_refusals() -> set[str]:
    """The codes in the client's source: what ``Refusal(...)`` is called with."""
    found = set()
    for file in (ROOT / "client").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refusal":
                code = node.args[0]
                found.add(
                    getattr(msg, code.attr) if isinstance(code, ast.Attribute) else ast.literal_eval(code)
                )
    return found


def test_the_page_names_every_key_of_the_policy() -> None:
    """No key is missing, and none is there that a policy has not."""
    keys = [name.replace("_", "-") for name in SitePolicy.model_fields]
    assert sorted(table("\n## The policy\n")) == sorted(keys)


def test_the_page_names_every_reason() -> None:
    """No code that the client gives is missing, and none is there that it does not give."""
    reasons = [f"{msg.REFUSED_BY_SITE}: {code}:" for code in codes_of_refusals()]
    told = table("The operator sees a refusal as an error")
    assert sorted(told) == sorted([*reasons, f"{msg.FAILED_AT_SITE}: CLASS:"])
