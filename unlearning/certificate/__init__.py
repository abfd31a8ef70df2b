"""Certificates of withdrawals: what may be claimed, in a form that two people sign and anybody can check."""
