"""Every request of the API, once, as a value; Mags sends it at once and AsyncMags awaits it.

A `Call[T]` names what its answer is; nothing is sent here. Argument checks that the published client made before
sending are made here too. A job is named by request id, name or workspace: the server resolves it.
"""
