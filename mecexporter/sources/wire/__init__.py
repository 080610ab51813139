"""How the sources speak: bounded clients for control sockets, OVSDB, OpenFlow and small files."""
