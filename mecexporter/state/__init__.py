"""The vocabulary of the domain: frozen values, standard library only."""
