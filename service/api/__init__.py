"""The HTTP side: resources, what they read and how they answer."""
