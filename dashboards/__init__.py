"""Grafana dashboards, generated from the metric declarations: `make generate` writes the JSON beside this file."""
