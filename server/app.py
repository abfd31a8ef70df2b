"""The ServerApp: the same in simulation and over gRPC."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid

from reconsent.config import load_consortium
from reconsent.environment import consortium_source, state_path
from reconsent.errors import ReconsentError
from reconsent.log_lines import start_logging
from server.coordinator import Coordinator
from server.persistence import StateDirectory
from server.service import Service, Task, recording
from strategies.packing import PackingGrid

LOG_FILE = "server.log"
"""Of the ServerApp's lines, in the state directory."""

app = ServerApp()

last_error: list[ReconsentError] = []
"""What ended the last run in this process; Flower's simulation engine passes on only that it ended."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the consortium that the run configuration or the environment names."""
    try:
        _run(grid, context)
    except ReconsentError as error:
        last_error.append(error)
        raise


def _run(grid: Grid, context: Context) -> None:
    source = consortium_source(context.run_config)
    state = state_path(context.run_config.get("state"))
    # Flower's simulation engine alone keeps its messages in memory.
    simulated = isinstance(grid, InMemoryGrid)
    with StateDirectory.open(state) as directory:
        # Flower keeps a ServerApp's output to itself, so it has a file of its own.
        start_logging(default="" if simulated else "human", file=directory.path / LOG_FILE)
        # In a simulation nothing is sent.
        way = grid if simulated else PackingGrid(grid)
        coordinator = Coordinator(
            way,
            load_consortium(source),
            directory,
            simulated=simulated,
            fab_sha256=grid.run.fab_hash or "",
        )
        task = Task.of(context.run_config)
        with recording(directory, str(context.run_id), task):
            if task.kind == "plan":
                coordinator.run()
            else:
                Service(coordinator).carry_out(task)
