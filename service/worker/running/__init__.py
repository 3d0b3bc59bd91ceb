"""How handlers run: on threads and on the event loop, within their time limit."""
