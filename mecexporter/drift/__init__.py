"""Neutron's objects held against Northbound's rows: pure functions of both, called by the source that reads them."""
