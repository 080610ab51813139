"""``python -m mecexporter`` is ``mecexporter``."""

from mecexporter.cli import main

raise SystemExit(main())
