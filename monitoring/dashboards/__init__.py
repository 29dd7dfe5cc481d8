"""Grafana's dashboards as code: ``python -m monitoring.dashboards`` writes ``manifests/monitoring/dashboards``."""
