"""What moves a priority or makes a router unfit: interfaces, scripts, processes, anything."""
