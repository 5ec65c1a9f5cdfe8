"""How objects begin and end, whatever is cancelled, raised or forked around them."""
