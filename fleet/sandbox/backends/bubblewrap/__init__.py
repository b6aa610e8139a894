"""The default backend: bubblewrap with a seccomp filter, cgroups where the host allows them."""
