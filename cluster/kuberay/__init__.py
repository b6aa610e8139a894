"""KubeRay: one file of config/cluster becomes all objects of a fleet, applied, watched, scaled and deleted."""
