"""What is on the dashboard of withdrawals: for whoever answers for them."""

from __future__ import annotations

from deploy.grafana.panels import Panel, Row

WITHDRAWALS = (
    Row(
        "Requests",
        (
            Panel(
                "Open withdrawals",
                "All that are not completed, refused or cancelled.",
                {"open": 'sum(reconsent_withdrawals{+state!~"completed|refused|cancelled"})'},
                "short",
                "stat",
                width=5,
                height=4,
            ),
            Panel(
                "Left over of who has left",
                "Entries of the contribution cache of sites whose withdrawal is completed. Must be 0.",
                {"entries": "reconsent_residual_contributions{}"},
                "short",
                "stat",
                width=5,
                height=4,
                red_above=1,
            ),
            Panel(
                "Revoked models",
                "Model versions that may not be used any more.",
                {"versions": 'reconsent_model_versions{+status="revoked"}'},
                "short",
                "stat",
                width=4,
                height=4,
            ),
            Panel(
                "Forgotten sites",
                "That the current model has unlearned.",
                {"sites": "reconsent_model_forgotten_sites{}"},
                "short",
                "stat",
                width=5,
                height=4,
            ),
            Panel(
                "Faults of the ledger",
                "1 if an entry is not what was written.",
                {"faults": "reconsent_ledger_faults{}"},
                "short",
                "stat",
                width=5,
                height=4,
                red_above=1,
            ),
            Panel(
                "Time left",
                "Until the requester of each open withdrawal must have been answered.",
                {"{{withdrawal}}": "withdrawal:reconsent_withdrawal_time_left:seconds{}"},
                "s",
                red_below=3 * 86400,
            ),
            Panel(
                "Withdrawals by state",
                "How many are in each state.",
                {"{{state}}": "reconsent_withdrawals{}"},
                "short",
            ),
            Panel(
                "Time in a state",
                "Mean time that withdrawals stayed in each state.",
                {
                    "{{state}}": "reconsent_withdrawal_state_duration_seconds_sum{} / "
                    "reconsent_withdrawal_state_duration_seconds_count{}"
                },
                "s",
                "bars",
            ),
        ),
    ),
    Row(
        "Unlearning",
        (
            Panel(
                "Progress of the unlearning",
                "Rounds done and planned of the newest one.",
                {
                    "done": 'reconsent_stage_rounds{+stage="unlearn"}',
                    "planned": 'reconsent_stage_rounds_planned{+stage="unlearn"}',
                },
                "short",
            ),
            Panel(
                "Ascent steps",
                "Kept, and taken back since they cost the remaining sites too much.",
                {"{{outcome}}": "reconsent_unlearning_ascent_steps_total{}"},
                "short",
            ),
            Panel(
                "Length of the ascent step",
                "In units of R, the size of one update of the site that leaves, or of its whole contribution "
                "if the method's unit is contribution.",
                {"alpha": "reconsent_unlearning_ascent_alpha{}"},
                "short",
            ),
            Panel(
                "Loss of the remaining sites",
                "Of the original model, and after the newest ascent step's round.",
                {"{{model}}": "reconsent_unlearning_retain_loss{}"},
                "short",
            ),
            Panel(
                "What it cost the remaining sites",
                "PSNR now, less that before the newest unlearning.",
                {"{{site}} ({{organ}})": "site:reconsent_unlearning_psnr_change:decibels{}"},
                "dB",
                red_below=-1,
            ),
            Panel(
                "Evidence of the last unlearning",
                "PSNR that it cost each remaining site, as it is on record, and the limit fixed before.",
                {
                    "{{site}}": "reconsent_evidence_psnr_lost_decibels{}",
                    "limit": "reconsent_evidence_psnr_lost_limit_decibels{}",
                },
                "dB",
            ),
            Panel(
                "Gaps to the retrained model",
                "By the last unlearning's certificate, or as a simulation measured them; empty where nothing "
                "was retrained.",
                {
                    "{{part}}": "reconsent_evidence_oracle_gap_decibels{} or "
                    "reconsent_simulation_oracle_gap_decibels{}"
                },
                "dB",
                "bars",
            ),
            Panel(
                "Gaps after relearning",
                "The same after so many steps on fresh images of the withdrawn organ.",
                {
                    "{{steps}} steps": "reconsent_evidence_relearn_gap_decibels{} or "
                    "reconsent_simulation_relearn_gap_decibels{}"
                },
                "dB",
                "bars",
            ),
            Panel(
                "Evidence within its limits",
                "Whether all figures of a family in that certificate keep the limits fixed before.",
                {"{{family}}": "reconsent_evidence_passed{}"},
                "bool_yes_no",
                "stat",
                red_below=1,
            ),
        ),
    ),
    Row(
        "Ledger and privacy",
        (
            Panel(
                "Entries of the ledger",
                "By kind.",
                {"{{kind}}": "reconsent_ledger_entries_total{}"},
                "short",
            ),
            Panel(
                "Since the ledger was verified",
                "Time since the exporter verified what was added, and all of it.",
                {
                    "what was added": "time() - reconsent_ledger_verified_timestamp_seconds{}",
                    "all of it": "time() - reconsent_ledger_whole_verified_timestamp_seconds{}",
                },
                "s",
                red_above=2 * 86400,
            ),
            Panel(
                "Privacy spent",
                "ε that each site has spent, by whom it protects; empty without differential privacy.",
                {"{{site}} ({{unit}})": "reconsent_privacy_epsilon_spent{}"},
                "short",
            ),
            Panel(
                "Privacy left",
                "ε that each site has left of its budget; empty without a limit.",
                {"{{site}} ({{unit}})": "site:reconsent_privacy_epsilon_left:difference{}"},
                "short",
                width=6,
            ),
            Panel(
                "Share of the privacy budget left",
                "The same over the budget.",
                {
                    "{{site}} ({{unit}})": "site:reconsent_privacy_epsilon_left:difference{} / "
                    "reconsent_privacy_epsilon_budget{}"
                },
                "percentunit",
                width=6,
                red_below=0.2,
            ),
            Panel(
                "Sits out",
                "1 while a site refuses to train because of its limits of privacy; empty without them.",
                {"{{site}}": "reconsent_privacy_sits_out{}"},
                "short",
                width=6,
                red_above=1,
            ),
            Panel(
                "Certificates issued",
                "Of withdrawals, so far.",
                {"certificates": "reconsent_certificates_issued_total{}"},
                "short",
                width=6,
            ),
            Panel(
                "Keys of sites",
                "Enrolled keys, valid and revoked.",
                {"{{status}}": "reconsent_site_keys{}"},
                "short",
                width=6,
            ),
        ),
    ),
)
