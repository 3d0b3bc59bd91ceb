"""`python -m service.doctor`: where MongoDB and Redis disagree."""
