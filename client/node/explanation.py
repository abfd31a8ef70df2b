"""What a node does, in words for a data protection officer and for the hospital's network people."""

from __future__ import annotations

import textwrap

from client.node.settings import NodeSettings
from client.policy import SitePolicy

WIDTH = 90

SHARED = (
    "after each training round the parameters of the reconstruction network: numbers, no images",
    "the number of training slices and of test slices",
    "mean training loss, and mean PSNR, SSIM and NMSE over the test slices",
    "seconds of its own work",
    "the site's name, its organ, the name of the consortium, and digests of what its file says of the "
    "network, the training, the sampling and the privacy of this site",
    "its public key, and with each request a signature over the time of this machine's clock",
    "if work is refused or fails: a fixed sentence, the class of the error, or words of the arithmetic "
    "(such as a loss that is not finite)",
    "its network address and the version of Flower, as every connection shows",
)
NEVER_SHARED = (
    "images, k-space, masks or any single measurement",
    "patient identifiers, pseudonyms, dates, the header of any scan",
    "names of files and directories, and the texts of errors that could hold them",
    "how many patients there are, or figures of a single scan (the mean over the test slices is that of one "
    "patient where there is only one test patient)",
)


def explain_node(settings: NodeSettings, policy: SitePolicy | None) -> str:
    """The whole explanation as plain text, filled in from the node's files.

    Parameters
    ----------
    settings
        Of the node.
    policy
        As it is now; ``None`` if there is none or it cannot be read.
    """
    parts = [
        _heading(f"What the node of site '{settings.name}' does"),
        _paragraph(
            "It trains a network that reconstructs MR images, on the scans of this site, without the scans "
            "leaving the site. It waits for messages of the consortium's server, works each one here, and "
            "answers."
        ),
        _heading("What is sent, to whom"),
        f"To the operator's server {settings.superlink}, and to nobody else:",
        _listed(SHARED),
        _paragraph(
            "The parameters hold what the network learned from the scans. They are not scans, but studies "
            "show that traces of training data can sometimes be drawn out of such parameters: treat them as "
            "derived from personal data."
        ),
        _heading("What is never sent"),
        _listed(NEVER_SHARED),
        _heading("Network"),
        _listed(_network(settings)),
        _heading("Files on this machine"),
        _listed(_files(settings)),
        _heading("What may be asked of it now"),
        _listed(_allowed(settings, policy)),
        _heading("How to refuse, and how to withdraw"),
        _paragraph(_withdrawal(settings)),
        _heading("Whom you trust with this"),
        _paragraph(_trust(settings)),
    ]
    return "\n\n".join(parts) + "\n"


def _network(settings: NodeSettings) -> list[str]:
    lines = [
        f"connects out to {settings.superlink} (TCP, TLS), and nowhere else; nothing needs to be let in",
        f"recognises that server by {settings.ca}, and proves itself with the key {settings.key}",
        f"opens 127.0.0.1:{settings.runtime_port} on this machine, between the node and its app",
    ]
    if settings.health_port is not None:
        lines.append(f"opens 127.0.0.1:{settings.health_port} on this machine, a health check")
    lines.append("Flower's telemetry and its check for updates are switched off; nothing is installed later")
    return lines


def _files(settings: NodeSettings) -> list[str]:
    return [
        f"reads the scans in {settings.data or 'the directory named in the consortium file'}",
        f"reads {settings.consortium}, which fixes the network and how it is trained",
        f"reads {settings.policy}, anew for every message" if settings.policy else "reads no policy",
        f"writes {settings.log_file}: every message that was worked or refused, when, with which model's "
        "hash, how many bytes and seconds; no patient and no file name"
        if settings.log_file
        else "writes no log of its own",
        f"uses {settings.home} for Flower and for the program that works a message"
        + (
            "; beside the node waits a process with the libraries, asked over a socket there"
            if settings.code == "installed"
            else ""
        ),
    ]


def _allowed(settings: NodeSettings, policy: SitePolicy | None) -> list[str]:
    if policy is None:
        if settings.policy is None:
            return ["anything: this site has no policy"]
        return ["nothing: the policy cannot be read"]
    if policy.withdrawn:
        return ["nothing: this site has withdrawn"]
    limit = policy.max_rounds_a_day
    return [
        "training: "
        + (("yes" if limit is None else f"at most {limit} rounds a day") if policy.may_train else "no"),
        *(
            [f"without {len(policy.withdrawn_patients)} patients who withdrew"]
            if policy.withdrawn_patients
            else []
        ),
        "differential privacy: " + _privacy(policy),
        "evaluating models on the test patients: " + ("yes" if policy.may_be_evaluated else "no"),
        "code: " + _code(settings, policy),
    ]


def _code(settings: NodeSettings, policy: SitePolicy) -> str:
    if policy.trusted_code:
        return f"one of {len(policy.trusted_code)} accepted digests"
    return "what is installed here" if settings.code == "installed" else "whatever the server sends"


def _privacy(policy: SitePolicy) -> str:
    whole = "the site as a whole" + (", the server being trusted to add the noise" * policy.trust_server)
    limits = ((policy.max_epsilon, f"a {policy.unit}"), (policy.max_site_epsilon, whole))
    told = [
        f"no more than ε = {limit:g} on {whom}, in all consortia together"
        for limit, whom in limits
        if limit is not None
    ]
    if policy.most_delta is not None:
        told.append(f"at a δ of no more than {policy.most_delta:g}")
    return " and ".join(told) or "as the consortium file says; this policy asks for none"


def _withdrawal(settings: NodeSettings) -> str:
    place = settings.policy or "a policy file (see `reconsent site init`; name it as policy in SITE.toml)"
    return (
        f"Edit {place}. `may-train = false` or `may-be-evaluated = false` refuse that work from the next "
        "message on. `withdrawn = true` refuses everything at once, without anybody's consent. Then tell the "
        "operator: only the operator can take out of the model what this site contributed before. Stopping "
        "the node also ends all sharing, but does not say why."
    )


def _trust(settings: NodeSettings) -> str:
    advice = (
        " Give the node a user of its own that can read the scans and nothing else, and let its machine out "
        "to the address above only."
    )
    if settings.code == "installed":
        return (
            "The code that works the messages is the Reconsent that is installed on this machine; the code "
            "that the server sends with a run is not even unpacked. So this policy, this log and these "
            "limits hold whatever the server is or becomes. They change when you install another version."
            + advice
        )
    return (
        'Because of code = "received", the code that works the messages is sent by the server when a run '
        "begins, and runs with the rights of this node's user. Policy and log are part of that code; "
        "trusted-code notices code that was changed by mistake, not code that was made to deceive." + advice
    )


def _paragraph(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}"


def _listed(lines: tuple[str, ...] | list[str]) -> str:
    wrapper = textwrap.TextWrapper(
        WIDTH,
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(wrapper.fill(line) for line in lines)
