"""What runs in a guest; each file runs alone there, with nothing of this tree but the exporter itself."""
