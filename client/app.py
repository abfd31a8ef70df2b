"""The ClientApp of a hospital: the same in simulation and over gRPC.

Over gRPC each message is a process of its own, so what needs torch is imported where it is needed.
"""

from __future__ import annotations

import os

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.gate import site_gate
from client.policy import current_policy
from client.site import Site, identify_site
from client.site_log import log_path
from client.witness import Witness, witness_path
from reconsent.agreement import shared_parts
from strategies import messages as msg
from strategies.packing import packed_records

app = ClientApp(mods=[packed_records, site_gate])


@app.query("identify")
def identify(message: Message, context: Context) -> Message:
    """Say which site this is, how many training slices it has, and by which consortium file it works."""
    site = _site(message, context)
    identity: dict[str, int | float | str | bool] = {
        msg.SITE: site.name,
        msg.ORGAN: site.config.organ,
        msg.CONSORTIUM: site.consortium.name,
        msg.NUM_EXAMPLES: site.training_slices(),
        msg.PACKS: True,
        msg.PARTS: True,
        **{msg.SHARED + part: digest for part, digest in shared_parts(site.consortium, site.name).items()},
    }
    path = log_path(context.node_config, os.environ)
    if path is not None and (entries := Witness(witness_path(path)).entries()) is not None:
        identity[msg.WITNESSED] = entries
    return Message(msg.content(config=identity), reply_to=message)


@app.query("initialise")
def initialise(message: Message, context: Context) -> Message:
    """Build the untrained reconstructor; the server knows no imaging, so a site does it."""
    from client.work import initial_model

    return Message(initial_model(_site(message, context)), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on this site's data and return it."""
    from client import work
    from client.privacy.opening import in_simulation, opened_budget

    policy = current_policy(context.node_config, os.environ)
    site = _site(message, context)
    budget = opened_budget(site, message, context.node_config, policy)
    content = work.train(
        site,
        message,
        may_evaluate=policy.may_be_evaluated,
        budget=budget,
        simulated=in_simulation(context.node_config),
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the received model on this site's test patients, or its loss on part of the training data."""
    from client.work import measure

    return Message(measure(_site(message, context), message), reply_to=message)


def _site(message: Message, context: Context) -> Site:
    """Who this is, without the patients who have withdrawn by now."""
    site = identify_site(context.node_config, context.run_config, os.environ)
    left = frozenset(current_policy(context.node_config, os.environ).withdrawn_patients)
    told = msg.config_of(message) if message.has_content() else {}
    # A server knows no patients: all it can say is that those of a simulation's file have left.
    return site.without(
        left | site.consortium.patients_leaving(site.name) if told.get(msg.PATIENTS_LEFT) else left
    )
