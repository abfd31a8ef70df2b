"""What server and sites say to each other: message types, record keys, configuration keys.

The only module that both sides share. A message carries at most one record of each kind, under the keys
below; everything else in it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from strategies.npy_views import view_array

TRAIN: Final = "train"
EVALUATE: Final = "evaluate"
IDENTIFY: Final = "query.identify"
INITIALISE: Final = "query.initialise"

ARRAYS: Final = "arrays"
TEACHER: Final = "teacher"
"""A second model in a train message with task ``distil``."""
CONFIG: Final = "config"
METRICS: Final = "metrics"

PACKS: Final = "packs"
"""True in an answer to ``identify``: the node takes packed records; in a message to it: answer in kind.

See :mod:`strategies.packing`."""
PARTS: Final = "packs-parts"
"""The same of a record that is packed into several arrays; who does not say so gets, and sends, one."""

# Configuration, server to site
SERVER_ROUND: Final = "server-round"
LEARNING_RATE: Final = "learning-rate"
EFFORT: Final = "effort"
"""In a train message: how many times the configured local epochs (or steps) to train; 1 if left out.

Below 1 it is the share of the configured steps, at least one."""
SHARE: Final = "share"
"""In a train message: share of the site's training patients to use, always the same ones; 1 if left out."""
OPTIMISER: Final = "optimiser"
"""In a train message: another optimiser than the configured one."""
FISHER: Final = "fisher"
"""An optimiser: θ ← θ − η m̂ / (√v̂ + ε) with m, v the running means of the gradient g and of (g ⊙ g)², and
the quotient kept within ±1."""
TASK: Final = "task"
"""In a train message: something else than training on the site's own targets."""
DISTIL: Final = "distil"
"""A task: train towards the outputs of the model under ``teacher``; the site's targets are not used."""
ASCEND: Final = "ascend"
"""A task of a leaving site: climb its own loss J, −J + γ ‖θ‖₁, by ``momentum`` SGD or the configured
optimiser, within ``radius`` of the received model if one is told, until J has grown ``stop-ratio``-fold."""
NOISY_LABELS: Final = "noisy-labels"
"""A task of a leaving site: train on its own data against targets with noise, see ``noise``."""
GAMMA: Final = "gamma"
"""Of ``ascend``: weight γ of ‖θ‖₁ beside −J."""
RADIUS: Final = "radius"
"""Of ``ascend``: largest distance from the received model; after each step the model is projected back."""
STOP_RATIO: Final = "stop-ratio"
"""Of ``ascend``: end when a batch's loss exceeds this times the first one's."""
MOMENTUM: Final = "momentum"
"""Of ``ascend``: take steps of SGD with this momentum instead of the configured optimiser's."""
GRADIENT_CLIP: Final = "gradient-clip"
"""Largest norm of a gradient, instead of the configured one."""
NOISE: Final = "noise"
"""Of ``noisy-labels``: λ, standard deviation over the largest target of the volume."""
FORGET_SET: Final = "forget-set"
"""In a train message: work on those patients alone who withdrew from a site that stays."""
PATIENTS_LEFT: Final = "patients-left"
"""In messages of a simulation: the patients who withdraw from this site have left.

A real site knows by itself."""
SPLIT: Final = "split"
SPLIT_TEST: Final = "test"
SPLIT_GATE: Final = "gate"
"""A fixed part of a site's *training* slices, to watch what unlearning costs without touching test data."""
EVALUATE_INCOMING: Final = "evaluate-incoming"
"""In a train message: also measure the model as it was received on the test patients, in the same reply.

The reply's metrics then hold ``psnr``, ``ssim`` and ``nmse`` of that model, ``test-examples`` and
``evaluation-seconds``, unless the site does not wish to be evaluated or the measuring failed.
"""

ACCOUNT: Final = "privacy-account"
"""In a train message of a simulation: which of its budgets the round is counted by. Real sites have one."""

CORRELATION: Final = "correlation"
"""In messages that ask for work: what it is done for, as both ends write it in their log lines.

The number of the withdrawal that is being unlearned, or that of the request which began the run."""

# Identity, site to server
SITE: Final = "site"
ORGAN: Final = "organ"
CONSORTIUM: Final = "consortium"
"""Its name."""
SHARED: Final = "shared-"
"""Before the name of each part of :func:`reconsent.agreement.shared_parts`, in the answer to who it is."""

# The ledger's newest checkpoint, in a train message to a site that may keep it
CHECKPOINT: Final = "checkpoint"
"""Its DSSE envelope, as JSON text."""
CHECKPOINT_KEY: Final = "checkpoint-key"
"""The public key that signed it, 64 hexadecimal digits."""
CHECKPOINT_PROOFS: Final = "checkpoint-proofs"
"""JSON text: number of entries that the site may have seen → hashes that prove that the ledger goes on."""
WITNESSED: Final = "witnessed-entries"
"""In a site's answers: entries of the newest checkpoint that it keeps; left out if it keeps none."""

_UNPROVEN = re.compile(r"ledger-unproven: This site last saw (\d{1,15}) entries")


def unproven_sentence(entries: int) -> str:
    """How a site says that it was not sent the proof it needs; :func:`unproven_size` reads it."""
    return (
        f"This site last saw {entries} entries of the ledger, and was not proved that it goes on from them."
    )


def unproven_size(reason: str) -> int | None:
    """Entries that a site has seen, by its refusal; ``None`` if it says something else."""
    found = _UNPROVEN.search(reason)
    return None if found is None else int(found[1])


# Metrics, site to server
NUM_EXAMPLES: Final = "num-examples"
TRAIN_LOSS: Final = "train-loss"
LOSS: Final = "loss"
PSNR: Final = "psnr"
SSIM: Final = "ssim"
NMSE: Final = "nmse"
SECONDS: Final = "seconds"
"""Wall-clock seconds of the site's own work; in a train reply without ``evaluation-seconds``."""
TRAINED_SLICES: Final = "trained-slices"
"""Slices that the round's training went over, each as often as it was seen; not told under privacy."""
LEFT_OUT: Final = "patients-left-out"
"""Patients whom the site has data of, and leaves out since they withdrew; not told if there are none."""
TEST_EXAMPLES: Final = "test-examples"
"""Test slices that the figures of the incoming model are a mean over."""
EVALUATION_SECONDS: Final = "evaluation-seconds"

EPSILON: Final[Mapping[str, str]] = {
    "patient": "epsilon-patient",
    "slice": "epsilon-slice",
    "site": "epsilon-site",
}
"""What the site has spent in this consortium in all, this round included, by whom it protects as one."""
PRIVACY_DELTA: Final = "privacy-delta"
"""δ of these ε."""
EPSILON_CEILING: Final = "epsilon-ceiling"
"""Most that the site will spend on a patient or slice."""
SITE_EPSILON_CEILING: Final = "epsilon-site-ceiling"
"""Most that it will spend as a whole."""
PRIVACY_METRICS: Final = frozenset({*EPSILON.values(), PRIVACY_DELTA, EPSILON_CEILING, SITE_EPSILON_CEILING})

# Errors, site to server: how the reason of an error reply begins
REFUSED_BY_SITE: Final = "refused-by-site"
"""The site's own policy forbids the work; then ``: CODE: sentence``."""
BUDGET_SPENT: Final = "budget-spent"
"""The code of a refusal by a site whose privacy budget the round would overdraw: it sits out."""
FAILED_AT_SITE: Final = "failed-at-site"
"""The work was begun and failed; then ``: ErrorClass: sentence``."""

NamedArrays = Mapping[str, npt.NDArray[np.generic]]


def array_record(arrays: NamedArrays | Iterable[tuple[str, npt.NDArray[np.generic]]]) -> ArrayRecord:
    """Named numpy arrays, all there or coming one after the other, as an ArrayRecord, in their order."""
    items = arrays.items() if isinstance(arrays, Mapping) else arrays
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in items})


def named_arrays(record: ArrayRecord) -> dict[str, npt.NDArray[np.generic]]:
    """An ArrayRecord's arrays by name, copied out of the message.

    Raises
    ------
    ValueError
        If an array cannot be decoded.
    """
    return {name: array.copy() for name, array in viewed_arrays(record).items()}


def viewed_arrays(record: ArrayRecord) -> dict[str, npt.NDArray[np.generic]]:
    """An ArrayRecord's arrays by name, as read-only views of the message.

    Raises
    ------
    ValueError
        If an array cannot be decoded.
    """
    return {name: view_array(array) for name, array in record.items()}


def let_go(message: Message, but: ArrayRecord) -> None:
    """Take the models out of a message that nobody needs any more.

    Flower's ``RecordDict`` and every view of it refer to themselves (their checks are bound methods), so
    whatever is in one stays in memory until garbage is collected: of a round's replies as many models as
    happen to have come by then. The arrays themselves are let go here; not those of ``but``, the record that
    was sent, which an app in the same process may have answered with.
    """
    if message.has_content():
        for record in message.content.array_records.values():
            if record is not but:
                record.clear()


def content(
    *,
    arrays: ArrayRecord | None = None,
    config: Mapping[str, int | float | str | bool] | None = None,
    metrics: Mapping[str, int | float] | None = None,
) -> RecordDict:
    """The content of a message."""
    record = RecordDict()
    if arrays is not None:
        record[ARRAYS] = arrays
    if config is not None:
        record[CONFIG] = ConfigRecord(dict(config))
    if metrics is not None:
        record[METRICS] = MetricRecord(dict(metrics))
    return record


def arrays_of(message: Message) -> ArrayRecord | None:
    """The arrays a message carries, if it carries exactly one set of them."""
    records = message.content.array_records
    return records.get(ARRAYS) if len(records) == 1 else None


def received_model(message: Message) -> ArrayRecord | None:
    """The model of a message to a site: what it carries, beside a teacher if there is one."""
    records = message.content.array_records
    return records.get(ARRAYS) if set(records) <= {ARRAYS, TEACHER} else None


def teacher_of(message: Message) -> ArrayRecord | None:
    """The second model of a message with task ``distil``."""
    return message.content.array_records.get(TEACHER)


def config_of(message: Message) -> dict[str, int | float | str | bool]:
    """The configuration a message carries; empty if none."""
    record = message.content.config_records.get(CONFIG)
    return cast("dict[str, int | float | str | bool]", dict(record)) if record is not None else {}


def metrics_of(message: Message) -> dict[str, float]:
    """The scalar metrics a message carries; lists are left out."""
    record = message.content.metric_records.get(METRICS)
    if record is None:
        return {}
    return {key: float(value) for key, value in record.items() if isinstance(value, int | float)}


def model_bytes(message: Message) -> int:
    """Bytes of all arrays that a message carries, under whatever keys."""
    records = message.content.array_records.values() if message.has_content() else ()
    return sum(payload_bytes(record) for record in records)


def payload_bytes(record: ArrayRecord | None) -> int:
    """Bytes of the arrays of a message, which is what its transport costs."""
    return sum(len(array.data) for array in record.values()) if record is not None else 0
