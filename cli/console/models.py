"""Model versions: whose updates are in them, which are revoked, and files for use elsewhere."""

from __future__ import annotations

from safetensors.numpy import save
from starlette.responses import Response

from cli.console.visits import Visit
from server.lineage import ancestry_of
from server.persistence import Exports, ModelRegistry, ModelVersion, VersionStatus


def models(visit: Visit) -> Response:
    """Every version, the newest first."""
    versions = ModelRegistry(visit.state).all()
    return visit.page("models.html.j2", versions=list(reversed(versions)))


def model(visit: Visit) -> Response:
    """One version, its ancestors and to whom it was given."""
    registry = ModelRegistry(visit.state)
    found = _named(visit, registry)
    if found is None:
        return visit.error(404, "There is nothing here", "There is no such model version.", "See the list.")
    ancestry = ancestry_of(registry, found)
    return visit.page(
        "model.html.j2",
        v=found,
        ancestors=list(reversed(ancestry.versions)),
        exports=[export for export in Exports(visit.state).all() if export.version == found.id],
    )


def export(visit: Visit) -> Response:
    """Give a version to somebody, on record first; one that is revoked is refused."""
    state = visit.state
    registry = ModelRegistry(state)
    found = _named(visit, registry)
    if found is None or found.status is VersionStatus.REVOKED or found.pruned:
        return visit.error(
            409, "That cannot be done", "This version was revoked, its file was removed, or there is none."
        )
    recipient = visit.line("recipient", "The recipient")
    arrays = registry.load(found.id)
    with state.session() as session:
        Exports(state).add(found, recipient, actor=visit.who.name, form="safetensors", session=session)
        visit.record("model-export", found.id, state=state, session=session)
    about = {"version": found.id, "sha256": found.digest, "status": found.status.value}
    return Response(
        save(arrays, metadata=about),
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="model-{found.id}.safetensors"'},
    )


def _named(visit: Visit, registry: ModelRegistry) -> ModelVersion | None:
    wanted = visit.request.path_params["id"]
    return next((version for version in registry.all() if version.id == wanted), None)
