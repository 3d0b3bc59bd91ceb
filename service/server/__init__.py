"""The server that the web application runs in: gunicorn, and what it lacks."""
