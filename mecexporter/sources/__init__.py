"""All I/O: each source keeps one part of the World current."""
