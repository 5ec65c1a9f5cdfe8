"""What moves a priority or makes a router unfit, one module for each kind of tracked thing."""
