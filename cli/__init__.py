"""``reconsent …``: parses, calls, prints; one file a group of commands."""
