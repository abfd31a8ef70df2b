"""``reconsent console``: a small web application for the privacy officer."""
