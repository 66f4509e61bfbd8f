"""The three Grafana dashboards as code; the built JSON lies in ``hpc/monitor/grafana``."""
