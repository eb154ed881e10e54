"""Galleries over HTTP: a REST interface, a search page, and a client. Needs ``pip install 'gloam[serve]'``."""
