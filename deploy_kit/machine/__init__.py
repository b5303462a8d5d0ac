"""What plays, limits and names the machine: emulators, containers, Jetsons. `environment` puts it together."""
