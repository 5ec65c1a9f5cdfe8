"""What is said to a server and what it must answer: HTTP, DNS, SMTP. Pure."""
