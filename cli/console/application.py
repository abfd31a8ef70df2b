"""The web application: its pages, and what holds for all of them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from cli.console import certificates, filing, ledger, login, models, overview, quality, register
from cli.console.guard import Guard
from cli.console.visits import Console, Right, View, Visit, route

_LOG = logging.getLogger("uvicorn.error")
_KINDS = {"console.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8"}


def application(console: Console, names: Collection[str]) -> ASGIApp:
    """The console as an ASGI application.

    Parameters
    ----------
    console
        What it shows.
    names
        Host names it answers to.
    """
    app = Starlette(
        routes=_routes(console),
        exception_handlers={HTTPException: _explain, 500: _failed},
    )
    app.state.console = console
    # Outside of everything, so that the page of an unforeseen error has its headers too.
    return Guard(app, names=names, secure=console.secure)


def _routes(console: Console) -> list[BaseRoute]:
    read, decide, anybody = Right.READ, Right.DECIDE, Right.ANYBODY

    def get(path: str, view: View, right: Right = read, *, touch: bool = True) -> Route:
        return route(console, path, view, right=right, touch=touch)

    def post(path: str, view: View, right: Right, action: str) -> Route:
        return route(console, path, view, right=right, action=action)

    return [
        get("/", overview.overview),
        get("/login", login.form, anybody),
        post("/login", login.log_in, anybody, "log-in"),
        post("/logout", login.log_out, read, "log-out"),
        get("/withdrawals", register.register),
        get("/withdrawals/new", filing.form, decide),
        post("/withdrawals/new", filing.check, decide, "withdraw"),
        post("/withdrawals", filing.file, decide, "withdraw"),
        get("/withdrawals/{id}", register.withdrawal),
        # Asked for by the page itself: nobody need be there any more.
        get("/withdrawals/{id}/progress", register.progress, touch=False),
        post("/withdrawals/{id}/note", register.note, decide, "note"),
        post("/withdrawals/{id}/notify", register.notify, decide, "notify"),
        post("/withdrawals/{id}/certificate", certificates.issue, Right.OPERATE, "certificate-issue"),
        post("/withdrawals/{id}/{decision}", register.decide, decide, "decide"),
        get("/certificates", certificates.certificates),
        post("/certificates/verify", certificates.verify_upload, read, "certificate-verify"),
        post(
            "/certificates/countersigned",
            certificates.countersigned,
            Right.COUNTERSIGN,
            "certificate-countersigned",
        ),
        get("/certificates/{id}", certificates.certificate),
        get("/certificates/{id}/whole", certificates.whole),
        get("/certificates/{id}/pdf", certificates.pdf),
        get("/certificates/{id}/signed", certificates.signed_file),
        get("/certificates/{id}/bundle", certificates.bundle),
        post("/certificates/{id}/verify", certificates.verify_kept, read, "certificate-verify"),
        get("/models", models.models),
        get("/models/{id}", models.model),
        post("/models/{id}/export", models.export, Right.OPERATE, "model-export"),
        get("/quality", quality.quality),
        get("/ledger", ledger.ledger),
        post("/ledger/verify", ledger.check, read, "ledger-verify"),
        post("/ledger/export", ledger.export, read, "ledger-export"),
        get("/keys", certificates.keys),
        get("/keys/operator", certificates.operator_key),
        post("/keys/officer", certificates.set_officer_key, Right.COUNTERSIGN, "officer-key"),
        Route("/static/{name}", _static, methods=["GET"]),
    ]


def _static(request: Request) -> Response:
    name = str(request.path_params["name"])
    if name not in _KINDS:
        raise HTTPException(404)
    content = files("cli.console").joinpath("static", name).read_bytes()
    return Response(content, media_type=_KINDS[name], headers={"Cache-Control": "private, max-age=300"})


def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these
    words = {404: "There is nothing here", 405: "Not in this way", 400: "The form cannot be read"}
    visit = Visit(request.app.state.console, request, str(request.state.number))
    title = words.get(error.status_code, "That cannot be done")
    return visit.error(error.status_code, title, "Go back, or begin at the overview.")


def _failed(request: Request, error: Exception) -> Response:
    visit = Visit(request.app.state.console, request, str(request.state.number))
    _LOG.error("request %s failed: %s", visit.number, type(error).__name__)
    problem = f"Something went wrong in the console itself. Its log names it by {visit.number}."
    return visit.error(500, "That went wrong", problem, "Tell whoever runs this console.")
