"""The consortium's side: rounds, withdrawals, and everything that outlives a run."""
