"""A small hospital with real files, and messages to its real ClientApp."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from mri.fastmri_file import write_volume
from reconsent.config import ConsortiumConfig, PhantomConfig, dump_consortium
from strategies import messages as msg

PHANTOM = PhantomConfig(matrix=(32, 32), coils=1, slices=2)


class Hospital:
    """A directory with a consortium file and the site ``north``'s volumes, under the names given."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "scans"
        self.consortium = ConsortiumConfig.model_validate(
            {
                "name": "two",
                "sites": [
                    {"name": "north", "organ": "brain", "data": "scans"},
                    {"name": "south", "organ": "knee"},
                ],
                "model": {"name": "unet", "channels": 2, "pools": 1},
                "training": {"local-epochs": 1, "batch-size": 2},
            }
        )
        self.file = root / "consortium.toml"
        self.policy = root / "policy.toml"
        self.log = root / "site.jsonl"

    @classmethod
    def built(cls, root: Path, names: Iterable[str] = ("p-0", "p-1", "p-2", "p-3")) -> Self:
        """Write the files: one patient of two slices for each name."""
        from mri.phantoms import synthesise_volume

        hospital = cls(root)
        for seed, name in enumerate(names):
            write_volume(
                hospital.data / f"{name}.h5", synthesise_volume("brain", PHANTOM, seed=seed, name=name)
            )
        hospital.file.write_text(dump_consortium(hospital.consortium))
        return hospital

    def ask(
        self,
        message_type: str,
        *,
        arrays: ArrayRecord | None = None,
        config: dict[str, Any] | None = None,
        node: dict[str, Any] | None = None,
        extra: dict[str, ArrayRecord] | None = None,
    ) -> Message:
        """What the site's ClientApp answers; ``extra``: further models; ``None`` in ``node``: no entry."""
        if TaskIdentity._run_id is None:  # Messages can only be made within a run.
            TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        message = Message(
            msg.content(
                arrays=arrays, config={msg.SERVER_ROUND: 3, msg.LEARNING_RATE: 1e-3, **(config or {})}
            ),
            dst_node_id=5,
            message_type=message_type,
        )
        for name, record in (extra or {}).items():
            message.content[name] = record
        message.metadata.__dict__["_message_id"] = "m-1"
        context = Context(
            run_id=7,
            node_id=5,
            node_config={k: v for k, v in {"site": "north", **(node or {})}.items() if v is not None},
            state=RecordDict(),
            run_config={"consortium": str(self.file)},
        )
        return app(message, context)

    def entries(self, path: Path | None = None) -> list[dict[str, Any]]:
        """The lines of the site's log."""
        return [json.loads(line) for line in (path or self.log).read_text().splitlines()]
