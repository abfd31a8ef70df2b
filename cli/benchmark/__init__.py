"""Every method of unlearning side by side, each at its own best settings."""
