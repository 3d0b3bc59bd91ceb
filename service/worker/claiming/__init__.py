"""Where jobs come from: messages in Redis, suspects, or straight from MongoDB."""
