"""The benchmark suite: ``python -m benchmarks`` runs every row beside the peers installed."""
