"""A server's engine, from afar: ``pip install outlast[client]``.

:class:`~outlast.client.client.Client` gives the handles that an engine gives, over HTTP.
"""
