"""The engine, opened to the world: REST, live events, OpenAPI.

It comes with ``pip install outlast[server]``, and the embedded library imports nothing of it.
:func:`~outlast.server.app.create_app` makes an ASGI app of an engine; ``outlast server`` and
``outlast dev`` serve it.
"""
