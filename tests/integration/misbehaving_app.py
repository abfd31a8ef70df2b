"""A site's app that misbehaves in the first training it is asked for; the installed one is back by then.

    python misbehaving_app.py hangs|nonsense PROGRAM ARGUMENTS...

``PROGRAM`` is the node's ``flwr-clientapp``; with ``.usual`` added, the one that is to be there afterwards.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import client.app
from client.gate import site_gate
from client.node import own_code
from strategies import messages as msg
from strategies.packing import packed_records

HANGS, NONSENSE = "hangs", "nonsense"


def app(fault: str, program: Path) -> Callable[[Message, Context], Message]:
    """The installed app, but for its training."""
    honest, misbehaving = client.app.app, ClientApp(mods=[packed_records, site_gate])

    @misbehaving.train()
    def train(message: Message, context: Context) -> Message:
        program.with_suffix(".usual").replace(program)
        received = msg.received_model(message)
        assert received is not None
        arrays = msg.named_arrays(received)
        if fault == HANGS:
            # Whoever lets it go on gets a reply that nothing but its lateness is wrong with.
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            arrays = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
        content = msg.content(
            arrays=msg.array_record(arrays), metrics={msg.NUM_EXAMPLES: 1, msg.SECONDS: 0.1}
        )
        return Message(content, reply_to=message)

    def answer(message: Message, context: Context) -> Message:
        return (misbehaving if message.metadata.message_type == msg.TRAIN else honest)(message, context)

    return answer


if __name__ == "__main__":
    client.app.app = app(sys.argv[1], Path(sys.argv[2]))  # type: ignore[assignment]
    del sys.argv[1:3]
    own_code.main()
