"""What this process holds: claimed jobs whose outcome isn't written, and how many more may come."""
