"""``reconsent certificate``: issue, countersign, verify and read certificates of withdrawals."""
