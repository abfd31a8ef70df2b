"""Dashboards for Grafana, written by its own library; `python -m deploy.grafana.writer` writes the JSON."""
