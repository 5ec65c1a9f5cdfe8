"""What a router finds and changes on its machine: interfaces, addresses, announcements."""
