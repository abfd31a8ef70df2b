"""What is on the dashboard of the consortium: for whoever operates it, or trains with it."""

from __future__ import annotations

from deploy.grafana.panels import Panel, Row

CONSORTIUM = (
    Row(
        "Now",
        (
            Panel(
                "State readable",
                "Whether the exporter can read the state; without it nothing below is true.",
                {"{{instance}}": "reconsent_state_readable{}"},
                "bool_yes_no",
                "stat",
                width=4,
                height=4,
                red_below=1,
            ),
            Panel(
                "Run under way",
                "Whether a run is under way. One that was killed counts until it is resumed.",
                {"{{instance}}": "reconsent_run_active{}"},
                "bool_yes_no",
                "stat",
                width=4,
                height=4,
            ),
            Panel(
                "Training rounds",
                "Done, and asked for.",
                {"done": "reconsent_training_rounds{}", "asked for": "reconsent_training_rounds_target{}"},
                "short",
                "stat",
                width=5,
                height=4,
            ),
            Panel(
                "Sites",
                "By status.",
                {"{{status}}": "reconsent_sites{}"},
                "short",
                "stat",
                width=6,
                height=4,
            ),
            Panel(
                "Current model",
                "Its round.",
                {"round": "reconsent_model_round{}"},
                "short",
                "stat",
                width=5,
                height=4,
            ),
            Panel(
                "Progress",
                "Share of the rounds done of the newest stretch of each stage.",
                {"{{stage}}": "reconsent_stage_rounds{} / reconsent_stage_rounds_planned{}"},
                "percentunit",
                "bars",
                width=12,
                height=5,
            ),
            Panel(
                "Free disk of the state directory",
                "Share that is free.",
                {"free": "reconsent_state_disk_free_bytes{} / reconsent_state_disk_size_bytes{}"},
                "percentunit",
                "bars",
                width=12,
                height=5,
                red_below=0.1,
            ),
        ),
    ),
    Row(
        "Rounds",
        (
            Panel(
                "Mean duration of a round",
                "Over all rounds there were, by phase.",
                {"{{phase}}": "phase:reconsent_round_duration:mean_seconds{}"},
                "s",
            ),
            Panel(
                "Where the time of a round goes",
                "Seconds spent so far in each part of the rounds, at the server.",
                {"{{phase}} {{step}}": "sum by (phase, step) (reconsent_round_step_duration_seconds_sum{})"},
                "s",
            ),
            Panel(
                "Rounds by outcome",
                "All there were: with every site, without some, taken back, or failed.",
                {"{{phase}} {{outcome}}": "sum by (phase, outcome) (reconsent_rounds_total{}) > 0"},
                "short",
            ),
            Panel(
                "Training loss",
                "Each site's mean loss in its last round.",
                {"{{site}}": "reconsent_training_loss{}"},
                "short",
            ),
            Panel(
                "Size of updates",
                "Euclidean norm of each site's last accepted update.",
                {"{{site}}": "reconsent_update_norm{}"},
                "short",
            ),
            Panel(
                "Models sent and received",
                "Bytes so far, by site, for whatever work.",
                {"{{site}} {{direction}}": "sum by (site, direction) (reconsent_model_bytes_total{})"},
                "bytes",
            ),
        ),
    ),
    Row(
        "Sites",
        (
            Panel(
                "Who is who",
                "Sites with organ and status.",
                {"{{site}}": "reconsent_site_info{}"},
                "short",
                "table",
            ),
            Panel(
                "Replies that were of no use",
                "By site and reason, so far.",
                {
                    "{{site}} {{reason}}": "reconsent_replies_unusable_total{}",
                },
                "short",
            ),
            Panel(
                "Rounds missed",
                "Rounds since a site's last accepted reply.",
                {"{{site}}": "reconsent_site_rounds_missed{}"},
                "short",
                red_above=3,
            ),
            Panel(
                "Sites' own work",
                "Mean seconds of a site's work on one message.",
                {
                    "{{site}} {{work}}": "reconsent_site_work_duration_seconds_sum{} / "
                    "reconsent_site_work_duration_seconds_count{}"
                },
                "s",
            ),
            Panel(
                "Contribution cache",
                "Bytes kept of each site.",
                {"{{site}}": "reconsent_contribution_cache_bytes{}"},
                "bytes",
            ),
            Panel(
                "Certificates",
                "Time until each ends.",
                {"{{file}}": "reconsent_certificate_expiry_timestamp_seconds{} - time()"},
                "s",
                "bars",
                red_below=30 * 86400,
            ),
        ),
    ),
    Row(
        "Image quality",
        (
            Panel(
                "PSNR",
                "On each site's test patients.",
                {"{{site}} ({{organ}})": "reconsent_evaluation_psnr_decibels{}"},
                "dB",
            ),
            Panel(
                "SSIM",
                "On each site's test patients.",
                {"{{site}} ({{organ}})": "reconsent_evaluation_ssim_ratio{}"},
                "short",
            ),
            Panel(
                "NMSE",
                "On each site's test patients.",
                {"{{site}} ({{organ}})": "reconsent_evaluation_nmse_ratio{}"},
                "short",
            ),
        ),
    ),
)
