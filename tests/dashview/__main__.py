"""Draws a dashboard by hand; exits 1 if a panel is not drawn with data."""

import argparse
import sys
from pathlib import Path

from tests.dashview import draw

parser = argparse.ArgumentParser(prog="python -m tests.dashview", description=__doc__)
parser.add_argument("dashboard", type=Path)
parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
parser.add_argument("--picture", type=Path, default=Path("dashboard.png"), metavar="PNG")
parser.add_argument("--from", dest="time_from", metavar="TIME", help="such as now-1h; default: the dashboard's")
parser.add_argument("--scrape-interval", default="15s", metavar="DURATION")
args = parser.parse_args()
drawing = draw(
    args.dashboard,
    args.prometheus,
    picture=args.picture,
    time_from=args.time_from,
    scrape_interval=args.scrape_interval,
)
for line in (*drawing.panels, *drawing.errors):
    print(line)  # noqa: T201 - a command prints
sys.exit(1 if drawing.bad() else 0)
