"""dlcore against what a reader would use instead: ``make bench`` runs ``python -m benchmarks``."""
