"""Differential privacy at a site: exact per-unit gradients, accounting, and a ledger of what was spent."""
