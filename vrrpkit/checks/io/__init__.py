"""The sockets of many short attempts."""
