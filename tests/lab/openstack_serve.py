"""Serves Keystone, Placement or Neutron on a port of 127.0.0.1; run by the interpreter that has a release's packages.

    python openstack_serve.py {keystone,placement,neutron} PORT [--no-maintenance]

Stands alone: nothing of this project can be imported there. Debian 12's Neutron has a server of its own, in which
ML2/OVN keeps its workers; recent releases are WSGI applications, and their maintenance is a program of its own.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

del sys.path[0]  # what lies beside this file is not for the packages that it imports


def serve(application: Any, port: int) -> None:
    importlib.import_module("waitress").serve(
        application, host="127.0.0.1", port=port, threads=4, ident=None, clear_untrusted_proxy_headers=True
    )


def neutron(port: int, *, maintenance: bool) -> None:
    try:
        server = importlib.import_module("neutron.cmd.eventlet.server")
    except ModuleNotFoundError:
        serve(importlib.import_module("neutron.wsgi.api").application, port)
        return
    if not maintenance:
        driver = importlib.import_module("neutron.plugins.ml2.drivers.ovn.mech_driver.mech_driver")
        driver.OVNMechanismDriver.get_workers = lambda _: []
    server.main()


def keystone(port: int) -> None:
    try:
        application = importlib.import_module("keystone.wsgi.api").application
    except ModuleNotFoundError:
        application = importlib.import_module("keystone.server.wsgi").initialize_public_application()
    serve(application, port)


def main() -> None:
    what, port, *options = sys.argv[1:]
    del sys.argv[1:]  # Neutron would read them; the environment says where its configuration is
    if what == "placement":
        serve(importlib.import_module("placement.wsgi").init_application(), int(port))
    elif what == "keystone":
        keystone(int(port))
    else:
        neutron(int(port), maintenance="--no-maintenance" not in options)


if __name__ == "__main__":
    main()
