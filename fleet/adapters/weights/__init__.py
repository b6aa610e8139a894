"""Weights of models: files by digest, and where they come from."""

from fleet.adapters.weights.files import FileWeightsStore, sha256_of
from fleet.adapters.weights.sources import GivenWeights, RemoteWeights
from fleet.adapters.weights.url import UrlWeights
from fleet.adapters.weights.wheels import WheelWeights

__all__ = ["FileWeightsStore", "GivenWeights", "RemoteWeights", "UrlWeights", "WheelWeights", "sha256_of"]
