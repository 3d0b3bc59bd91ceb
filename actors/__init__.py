"""The event types, one module each; `dramatiq actors` runs them. A new module is found by itself.

Importing it connects to nothing, so the web imports it too, for the event types and their schemas.
"""

from actors import dead_letter
from service.worker.build import build

broker = build(__name__, dead_letter.declare)
