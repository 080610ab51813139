"""HTTP: what operators, Prometheus and tools read."""
