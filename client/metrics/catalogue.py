"""Every metric of a site's exporter, by topic."""

from __future__ import annotations

from reconsent.exposition import Metric, Topic

BUILD = Metric(
    "reconsent_site_build_info",
    "gauge",
    "1, with the site's name and its release of Reconsent",
    ("site", "version"),
)
READABLE = Metric(
    "reconsent_site_log_readable",
    "gauge",
    "1 if the site's log could be read in this scrape, or is not there yet",
)
COLLECTED = Metric(
    "reconsent_site_collected_timestamp_seconds",
    "gauge",
    "When these values were read, in seconds since 1970: at each scrape, or when a file for a node exporter "
    "was written",
)

MESSAGES = Metric(
    "reconsent_site_messages_total",
    "counter",
    "Messages of the server by type and what became of them: worked, refused, or failed",
    ("type", "outcome"),
    "for types that occurred; train and evaluate always",
)
REFUSALS = Metric(
    "reconsent_site_refusals_total",
    "counter",
    "Messages that the site refused, by the code of its reason",
    ("reason",),
    "for reasons that occurred",
)
DURATION = Metric(
    "reconsent_site_message_duration_seconds",
    "histogram",
    "Duration of the work on one message at the site",
    ("type",),
    "for types that were worked",
)
BYTES = Metric(
    "reconsent_site_model_bytes_total",
    "counter",
    "Bytes of models received from the server, of messages that were refused as well, and sent to it",
    ("direction",),
)
LAST = Metric(
    "reconsent_site_last_message_timestamp_seconds",
    "gauge",
    "When the server last asked anything, in seconds since 1970",
    seen_when="once it did",
)
ROUND = Metric(
    "reconsent_site_last_round", "gauge", "Round of the last training", seen_when="once there was one"
)
TRAINED = Metric(
    "reconsent_site_trainings_last_day",
    "gauge",
    "Trainings worked in the last 24 hours, which the policy may limit",
)

POLICY = Metric(
    "reconsent_site_policy_readable",
    "gauge",
    "1 if the policy can be read; at 0 everything is refused",
    seen_when="if the site has a policy",
)
WITHDRAWN = Metric(
    "reconsent_site_withdrawn",
    "gauge",
    "1 if the policy says that the site has withdrawn",
    seen_when="if it can be read",
)
MAY = Metric(
    "reconsent_site_allowed",
    "gauge",
    "1 if the policy allows the server to ask for it",
    ("work",),
    "if it can be read",
)
LIMIT = Metric(
    "reconsent_site_trainings_per_day_limit",
    "gauge",
    "Most trainings in 24 hours",
    seen_when="if the policy sets one",
)

LOG_BYTES = Metric(
    "reconsent_site_log_bytes", "gauge", "Size of the site's log", seen_when="once there is a log"
)
DISK_FREE = Metric(
    "reconsent_site_disk_free_bytes",
    "gauge",
    "Bytes free on the disk of the log",
    seen_when="if the site keeps a log",
)
DISK_SIZE = Metric(
    "reconsent_site_disk_size_bytes",
    "gauge",
    "Size of the disk of the log",
    seen_when="if the site keeps a log",
)
CA_EXPIRY = Metric(
    "reconsent_site_authority_expiry_timestamp_seconds",
    "gauge",
    "When the certificate ends by which the site knows the server, in seconds since 1970",
    seen_when="if the exporter was told of it",
)

CATALOGUE: tuple[Topic, ...] = (
    Topic("The site's exporter", (BUILD, READABLE, COLLECTED)),
    Topic("Messages", (MESSAGES, REFUSALS, DURATION, BYTES, LAST, ROUND, TRAINED)),
    Topic("Policy", (POLICY, WITHDRAWN, MAY, LIMIT)),
    Topic("Disk and certificate", (LOG_BYTES, DISK_FREE, DISK_SIZE, CA_EXPIRY)),
)

METRICS: tuple[Metric, ...] = tuple(metric for topic in CATALOGUE for metric in topic.metrics)
