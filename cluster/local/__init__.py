"""The local cluster: Ray, embedded stores and their supervisor on one machine."""
