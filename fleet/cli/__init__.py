"""The command line `fleet`."""
