"""The proxy that lets a run reach the hosts of its policy and no others."""
