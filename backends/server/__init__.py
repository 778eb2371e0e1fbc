"""A server for OpenAI's fine-tuning and inference wire format, over the local backend."""
