"""Who is told of what happens: scripts, a FIFO, mail, functions of the program."""
