"""A server's engine, from afar: ``pip install "outlast[client]"``.

:class:`~outlast.client.client.Client` gives the handles that an engine gives, over HTTP.
"""

try:
    import httpx as _httpx  # noqa: F401 - whoever lacks it is told here what to install
except ModuleNotFoundError as error:
    said = f'a client needs {error.name}: pip install "outlast[client]"'
    raise ModuleNotFoundError(said, name=error.name) from None
