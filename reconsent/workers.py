"""Worker processes that begin at once: forked from one process that has imported what they need.

Importing PyTorch and all that goes with it takes seconds of computing, in every process that begins from
nothing. So one process does it, with none of the threads of this one, which may not be forked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver, get_context, parent_process

# The command line's own library goes first: some of the others turn deprecation warnings on, and a worker
# that imported it after them would print those of its imports. Optimisers want dynamo. A module that is not
# there is passed over.
_FIRST, _LAST = ("typer",), ("torch._dynamo",)


def worker_pool(workers: int, module: str) -> ProcessPoolExecutor:
    """Processes that have ``module``, and the environment as it is now; they end when this one does.

    The process that they are forked from is one for all pools, and imports what the first of them asks for.

    Parameters
    ----------
    workers
        How many.
    module
        What they work with.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([*_FIRST, module, *_LAST])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_settle, initargs=(dict(os.environ),))


def import_beforehand(module: str) -> None:
    """Have that one process begin with its imports now, beside whatever this one does next.

    Parameters
    ----------
    module
        What the first pool will work with.
    """
    forkserver.set_forkserver_preload([*_FIRST, module, *_LAST])
    forkserver.ensure_running()


def _settle(environment: Mapping[str, str]) -> None:
    """Take over an environment; that of the forking process is as old as that process."""
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_the_parent, name="end-with-the-parent", daemon=True).start()


def _end_with_the_parent() -> None:
    """A pool tells its workers to end; one whose process was killed does not, and they wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
