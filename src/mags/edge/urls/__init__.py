"""Public URLs: Caddy in front, a unix socket for each name behind it, a byte relay behind each socket.

    client -> Caddy -> u/NAME.sock -> relay -> the VM's address and port
                 |
                 +-> gate (no such socket yet, a private URL, another domain): says no with a page, or makes the
                     socket and names it

The hot path asks nobody: a name that is in use has its socket, and Caddy keeps a pool of connections to each.
"""
