"""Every route by everybody, by every trick: what is answered is what the tables say.

Theory of operation. Requests are made of the route table and of the forms in its OpenAPI document,
never by hand: a route that is added is asked by the next campaign. What an answer may be follows
from the same tables (``judging``): the route's line says which permission it takes,
``access.decide`` says who has it, OpenAPI says which statuses and bodies there are. A text of its
own is sown in everything that is stored (``world``); where one of them comes out, somebody saw what
is not theirs.
"""
