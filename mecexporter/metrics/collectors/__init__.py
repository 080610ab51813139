"""One collector a file."""
