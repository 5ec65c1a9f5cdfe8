"""The links and addresses of one network namespace, as the kernel tells of them."""
