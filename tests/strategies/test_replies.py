"""What comes back from a site, in words that logs and databases can hold."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Error, Message

from strategies import messages as msg
from strategies.replies import LONGEST_REASON, as_reply, readable
from tests.linear_app import model


def test_errors_are_made_readable() -> None:
    """What a site raises comes without control characters, and cut: databases refuse a zero byte."""
    told = readable("a\x00b\x1b[31mc\n" + "x" * 10_000)
    assert told.startswith("a b [31mc x")
    assert len(told) == LONGEST_REASON


@pytest.mark.parametrize(
    ("code", "told", "status", "reason"),
    [
        (6, "refused-by-site: withdrawn: gone", "refused", "refused-by-site: withdrawn: gone"),
        (6, "another gate", "refused", "refused-by-site: another gate"),
        (2, "refused-by-site: not-allowed: no", "refused", "refused-by-site: not-allowed: no"),
        (2, "failed-at-site: ValueError", "app_error", "failed-at-site: ValueError"),
        (5, "", "node_unavailable", "error 5"),
    ],
)
def test_a_refusal_by_the_site_is_no_failure(code: int, told: str, status: str, reason: str) -> None:
    """What a site will not do has a status of its own, and a reason that always begins alike."""
    content = msg.content(arrays=model(np.ones(3)), config={msg.SERVER_ROUND: 1})
    asked = Message(content, dst_node_id=1, message_type=msg.TRAIN)
    reply = as_reply(Message(Error(code=code, reason=told), reply_to=asked), 1, "delta")
    assert (reply.status, reply.reason, reply.message) == (status, reason, None)
